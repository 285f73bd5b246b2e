"""Videos -> face shards: frames, clips and triples, as data_pipelines/records.py declares them.

    python -m data_pipelines.build --source=synthetic --out=D
    python -m data_pipelines.build --source=videos/ --out=D --size=512
    python -m data_pipelines.build --manifest=list.json --out=D --size=256 --triples=10000

Writes D/{frames,clips,triples}, D/contact_sheet.jpg and D/contact_triples.jpg (look at both before
training), D/refused.json (what was left out, and why), D/landmarks (kept for the next build) and,
for the synthetic set, D/videos. Real videos need the extra `media`. The shards do not depend on
the number of workers. A finished build is not repeated; another configuration needs another D.
"""

import argparse
import collections
import concurrent.futures
import contextlib
import dataclasses
import itertools
import json
import multiprocessing
import os
import pathlib
import tempfile
import time
from concurrent.futures.process import BrokenProcessPool

from absl import app
from absl.flags import argparse_flags

from data_pipelines import faces, proxy, records, sheet, sources, synthetic, triples


class BuildError(ValueError):
    """One clear line: what cannot be built, where, what to do."""


@dataclasses.dataclass(frozen=True)
class Config:
    """What to build; the fields after `workers` are of the synthetic set alone."""

    out: str
    source: str = ""  # a folder of videos, or "synthetic"
    manifest: str = ""  # see sources.from_manifest; its files are in `source`, or else beside it
    size: int = 64  # side of the crops in pixels
    proxy: str = ""  # exact | classical; "": exact for the synthetic set
    triples: int = 1000  # of the train split
    val_triples: int = 240
    max_seconds: float = 10.0  # longer videos become several clips (paper: 10 s); 0: never
    seed: int = 0
    workers: int = 1  # processes; 1: this one
    identities: int = 24
    val_identities: float = 0.2  # a share, or from 1 on a number
    clips: int = 4  # of each identity
    frames: int = 50  # of each clip, at 25 fps
    frame_size: int = 160  # side of the videos in pixels


def build(config: Config) -> dict:
    """Builds, or returns at once when this was built before; gives the summary of build.json.

    Raises:
      BuildError, sources.SourceError: the arguments, the input or the output folder cannot be
        used; ImportError: landmarks are needed and the extra `media` is not installed.
    """
    out = pathlib.Path(config.out)
    settings = _settings(config)
    summary = _finished(out, settings)
    if summary:
        print(f"{out} is already built: {_sentence(summary)}")
        return summary
    videos = _videos(config, out)  # a wrong argument leaves no folder behind
    swapper = settings["proxy"]
    if videos and swapper == "exact" and any(v.synthetic is None for v in videos):
        raise BuildError("--proxy=exact is for the synthetic set; take --proxy=classical")
    out.mkdir(parents=True, exist_ok=True)
    _write_json(out / "build.json", {"settings": settings})
    videos = videos or _draw(config, out)
    with contextlib.ExitStack() as stack:
        pool = None
        if config.workers > 1:
            pool = concurrent.futures.ProcessPoolExecutor(
                config.workers,
                mp_context=multiprocessing.get_context("spawn"),  # a fork may hold jax's locks
                initializer=faces.start_worker,
            )
            stack.enter_context(pool)
        started = time.monotonic()
        runs, refused = _write_clips(config, out, videos, pool)
        seconds = time.monotonic() - started
        swapped = _write_triples(config, out, sources.identities(videos), runs, swapper, pool)
    frames = {split: sum(run.count for run in runs[split]) for split in runs}
    summary = {
        "clips": sum(map(len, runs.values())),
        "refused": len(refused),
        "frames": frames,
        "triples": swapped,
        "seconds": round(seconds, 1),
        "frames_per_second": round(sum(frames.values()) / seconds, 1),
    }
    sheet.write(out)
    _write_json(out / "build.json", {"settings": settings, "summary": summary})
    print(f"{out}: {_sentence(summary)}")
    return summary


def _settings(config):
    """What the shards depend on, as build.json keeps it."""
    made = config.source == "synthetic"
    if not (config.source or config.manifest) or (made and config.manifest):
        raise BuildError("give --source=synthetic, or a folder as --source, or a --manifest (JSON)")
    settings = dataclasses.asdict(config)
    settings["proxy"] = config.proxy or ("exact" if made else "classical")
    if settings["proxy"] not in proxy.PROXIES:
        raise BuildError(f"--proxy={config.proxy}: there are {', '.join(proxy.PROXIES)}")
    for name in ("out", "workers"):
        settings.pop(name)
    for name in ("source", "manifest"):
        if settings[name] and not made:
            settings[name] = str(pathlib.Path(settings[name]).resolve())
    if not made:
        for name in ("identities", "val_identities", "clips", "frames", "frame_size"):
            settings.pop(name)
    return settings


def _finished(out, settings):
    """The summary when this was built before. Raises BuildError when something else was."""
    try:
        stored = json.loads((out / "build.json").read_text())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise BuildError(f"{out / 'build.json'} is broken ({error}); take an empty --out") from None
    before = stored["settings"]
    if before != settings:
        names = sorted(k for k in before.keys() | settings if before.get(k) != settings.get(k))
        differ = ", ".join(f"{k} was {before.get(k)} and is {settings.get(k)}" for k in names)
        raise BuildError(f"{out} holds another build ({differ}); take another --out, or delete it")
    return stored.get("summary")


def _videos(config, out):
    """What there is to read; none yet of the synthetic set."""
    if config.manifest:
        manifest = pathlib.Path(config.manifest)
        return sources.from_manifest(manifest, pathlib.Path(config.source or manifest.parent))
    if config.source == "synthetic":
        return []
    return sources.from_folder(pathlib.Path(config.source), leave_out=out)


def _draw(config, out):
    """The videos of the synthetic set, made now unless they stand already."""
    val = config.val_identities
    try:
        manifest = synthetic.write(
            out / "videos",
            seed=config.seed,
            identities=config.identities,
            clips=config.clips,
            frames=config.frames,
            size=config.frame_size,
            val=val if val < 1 else val / config.identities,
            workers=config.workers,
        )
    except ValueError as error:
        raise BuildError(str(error)) from error
    return sources.from_manifest(manifest)


def _write_clips(config, out, videos, pool):
    """-> ({split: [triples.Run ...]}, rows of refused.json); frames and clips appear together."""
    names = sources.identities(videos)
    metadata = {"size": config.size, "fps": faces.FPS, "rate": faces.RATE, "identities": names}
    metadata["train_identities"] = len({v.identity for v in videos if v.split == "train"})
    metadata["source"] = config.manifest or config.source
    runs, refused = {split: [] for split in sources.SPLITS}, []
    progress = _Progress("videos", len(videos))
    with tempfile.TemporaryDirectory(prefix=".build-", dir=out) as scratch:
        longest = round(config.max_seconds * faces.FPS)
        cache, scratch = out / "landmarks", pathlib.Path(scratch)
        jobs = [
            (i, faces.Job(v, config.size, longest, cache, scratch)) for i, v in enumerate(videos)
        ]
        with (
            records.Writer(out, "frames", metadata) as frames,
            records.Writer(out, "clips", metadata) as clips,
        ):
            results = _in_order(pool, config.workers, faces.clips, jobs)
            for video, (paths, reason) in zip(videos, results, strict=True):
                if reason:
                    print(f"left out: {reason}", flush=True)
                    refused.append({"file": video.name, "reason": reason})
                for path in paths:
                    clip = faces.load(path)
                    path.unlink()
                    run = _write_clip(frames, clips, video, names.index(video.identity), clip)
                    runs[video.split].append(run)
                    progress.count("frames", run.count)
                progress.step()
            _write_json(out / "refused.json", refused)
            if not any(runs.values()):
                raise BuildError(
                    f"none of the {len(videos)} videos could be used; see {out / 'refused.json'}"
                )
    return runs, refused


def _write_clip(frames, clips, video, identity, clip):
    for i, image in enumerate(clip["images"]):
        index = frames.write(
            video.split,
            {
                "image": image,
                "landmarks": clip["landmarks"][i],
                "matrix": clip["matrices"][i],
                "identity": identity,
                "clip": clip["name"],
                "frame": clip["first"] + i,
            },
        )
    count = len(clip["images"])
    meta = {"file": video.name} | ({"synthetic": video.synthetic} if video.synthetic else {})
    record = {
        "name": clip["name"],
        "identity": identity,
        "identity_name": video.identity,
        "first": index + 1 - count,
        "frames": count,
        "audio": clip["audio"],
        "meta": json.dumps(meta),
    }
    clips.write(video.split, record)
    return triples.Run(identity, index + 1 - count, count, video.synthetic)


def _write_triples(config, out, names, runs, swapper, pool):
    """-> {split: number of triples}."""
    plans = {}
    counts = {"train": config.triples, "val": config.val_triples}
    for number, split in enumerate(sources.SPLITS if config.triples else ()):
        plans[split] = triples.plan(runs[split], counts[split], (config.seed, number))
        if not plans[split]:
            print(f"no triples in {split}: they need two identities", flush=True)
    if not any(plans.values()):
        return {}
    metadata = {"size": config.size, "identities": names, "proxy": swapper}
    progress = _Progress("triples", sum(map(len, plans.values())))
    counts = collections.Counter()
    with records.Writer(out, "triples", metadata) as writer:
        for split, pairs in plans.items():
            chunks = [pairs[i : i + triples.CHUNK] for i in range(0, len(pairs), triples.CHUNK)]
            jobs = [(out, split, swapper, chunk) for chunk in chunks]
            results = _in_order(pool, config.workers, triples.swap, jobs)
            for pair, image in zip(pairs, itertools.chain.from_iterable(results), strict=True):
                progress.step()
                if image is None:
                    continue
                fields = ("source", "target", "source_identity", "target_identity")
                record = {name: getattr(pair, name) for name in fields}
                writer.write(split, record | {"result": image})
                counts[split] += 1
    return dict(counts)


def _in_order(pool, workers, function, jobs):
    """function(*job) of each job, in order; few are under way at once, so memory is bounded."""
    if pool is None:
        yield from itertools.starmap(function, jobs)
        return
    jobs, waiting = iter(jobs), collections.deque()
    try:
        for job in itertools.islice(jobs, 2 * workers):
            waiting.append(pool.submit(function, *job))
        while waiting:
            yield waiting.popleft().result()
            for job in itertools.islice(jobs, 1):
                waiting.append(pool.submit(function, *job))
    except BrokenProcessPool as error:
        raise BuildError(
            "a build process died (out of memory, or a file that breaks a decoder); run again with"
            " --workers=1 to see at which file"
        ) from error
    finally:
        for future in waiting:
            future.cancel()


class _Progress:
    """A line every few seconds: how many, how fast, how long still."""

    EVERY = 5.0  # seconds

    def __init__(self, what, total):
        self.what, self.total, self.done = what, total, 0
        self.counts = collections.Counter()
        self.started = self.last = time.monotonic()

    def count(self, what, n):
        self.counts[what] += n

    def step(self):
        self.done += 1
        now = time.monotonic()
        if now - self.last < self.EVERY and self.done < self.total:
            return
        self.last, took = now, max(now - self.started, 1e-3)
        left = round(took / self.done * (self.total - self.done))
        rates = "".join(f", {n} {what} ({n / took:.1f}/s)" for what, n in self.counts.items())
        print(
            f"{self.what} {self.done}/{self.total} ({self.done / took:.1f}/s){rates},"
            f" {left // 60}:{left % 60:02d} left",
            flush=True,
        )


def _sentence(summary):
    parts = [f"{summary['clips']} clips kept, {summary['refused']} videos left out"]
    for kind in ("frames", "triples"):
        parts += [f"{n} {kind} in {split}" for split, n in summary[kind].items()]
    return ", ".join(parts) + f", {summary['frames_per_second']} frames/s"


def _write_json(path, content):
    part = path.with_name(f".{os.getpid()}-{path.name}")
    part.write_text(json.dumps(content, indent=1))
    os.replace(part, path)


def _parse(argv):
    """Command line -> Config. Not absl flags, which would be global to every importer."""
    parser = argparse_flags.ArgumentParser(
        prog="python -m data_pipelines.build",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = [field.name for field in dataclasses.fields(Config)]
    parser.add_argument("--out", required=True)
    for field in dataclasses.fields(Config):
        if field.name != "out":
            default = os.cpu_count() if field.name == "workers" else field.default
            parser.add_argument(
                f"--{field.name}", type=field.type, default=default, help=f"default: {default}"
            )
    parsed = vars(parser.parse_args(argv[1:]))
    return Config(**{name: parsed[name] for name in names})


def main(config: Config):
    """Command line: errors end it in one line."""
    try:
        build(config)
    except (BuildError, sources.SourceError, records.RecordError, ImportError) as error:
        raise SystemExit(f"error: {error}") from None
    except KeyboardInterrupt:
        raise SystemExit(
            "stopped; detected landmarks are kept, run the same command again"
        ) from None


if __name__ == "__main__":
    app.run(main, flags_parser=_parse)

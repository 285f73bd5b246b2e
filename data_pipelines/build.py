"""Videos -> face shards: frames, clips and triples, as data_pipelines/records.py declares them.

    python -m data_pipelines.build --source=synthetic --out=D
    python -m data_pipelines.build --source=videos/ --out=D --size=512
    python -m data_pipelines.build --manifest=list.json --out=D --size=256 --triples=10000
    python -m data_pipelines.build --lists=hdtf_lists/ --source=videos/ --out=D --size=512

Writes D/{frames,clips,triples}, D/index.html (the page to judge the data by, before training),
D/report.json (every video and clip: what was measured, what was left out and why), D/landmarks
(kept for the next build) and, for the synthetic set, D/videos. Real videos need the extra `media`.

The work runs on Apache Beam: in --workers processes of this machine, or elsewhere by Beam's own
options, e.g. --runner=FlinkRunner --flink_master=...; see building/runner.py. The same
command goes on where a build was stopped. The shards do not depend on where and by how many they
were made. A finished build is not repeated; another configuration needs another D.
"""

import argparse
import collections
import contextlib
import dataclasses
import fcntl
import functools
import json
import os
import pathlib
import shutil
import sys

from absl import app

from data_pipelines import command, files
from data_pipelines.building import runner
from data_pipelines.building.rounds import Rounds
from data_pipelines.errors import STOPPED, SwapTalkError
from data_pipelines.faces import quality
from data_pipelines.page import page
from data_pipelines.people.identities import SAME
from data_pipelines.proxies import choice
from data_pipelines.sources import hdtf, listing
from data_pipelines.synthetic import sampling

WORK = ".work"  # below --out, while a build is under way
REPORT = "report.json"


class BuildError(SwapTalkError, ValueError):
    """One clear line: what cannot be built, where, what to do."""


@dataclasses.dataclass(frozen=True)
class Config:
    """What to build; the fields from `identities` on are of the synthetic set alone."""

    out: str
    source: str = ""  # a folder of videos, or "synthetic"
    manifest: str = ""  # see sources.from_manifest; its files are in `source`, or else beside it
    lists: str = ""  # a folder of HDTF's published lists, whose videos are in `source`
    size: int = 64  # side of the crops in pixels
    proxy: str = ""  # exact | classical | inswapper; "": exact for the synthetic set
    proxy_model: str = ""  # of inswapper: its ONNX file
    proxy_recogniser: str = ""  # of inswapper: the ONNX file of the recogniser it was trained with
    triples: int = 1000  # of the train split
    val_triples: int = 240
    max_seconds: float = 10.0  # longer videos become several clips (paper: 10 s); 0: never
    # Clips of which it cannot be told how late their sound is: refuse | keep. They are kept, too,
    # where the videos are too few to know what is in step (offset.ANCHORS).
    unsure: str = "refuse"
    same_face: float = SAME  # distance under which faces are one person; 0: by names
    seed: int = 0
    workers: int = 1  # processes; 1: this one
    gates: quality.Gates = quality.Gates()
    identities: int = 24
    val_identities: float = 0.2  # a share, or from 1 on a number
    clips: int = 4  # of each identity
    frames: int = 50  # of each clip, at 25 fps
    frame_size: int = 160  # side of the videos in pixels


def build(config: Config, beam: tuple[str, ...] = ()) -> dict:
    """Builds, or returns at once when this was built before; gives the summary of report.json.

    beam: options for Apache Beam; none: `config.workers` processes of this machine.

    Raises:
      SwapTalkError: the arguments, the input, the output folder or Beam cannot be used, or an extra
        is not installed.
    """
    out = pathlib.Path(config.out)
    settings = _settings(config)
    summary = _finished(out, settings)
    if summary:
        print(f"{out} is already built: {_sentence(summary)}")
        return summary
    # Wrong arguments leave no folder behind.
    swapper = choice.make(settings["proxy"], config.proxy_model, config.proxy_recogniser)
    videos, missing = _videos(config, out)
    work = out / WORK
    with _alone(work):
        files.replace_text(out / "build.json", json.dumps({"settings": settings}, indent=1))
        videos = videos or _draw(config, out)
        log = work / "workers.log"
        run = functools.partial(runner.run, log=log, workers=config.workers, options=beam)
        rounds = Rounds(config, settings, out, work, run)
        rows = rounds.cut(videos) + missing
        rounds.correct_offsets(rows)
        _tell_refused(out, rows)
        people = rounds.people(rows)
        kept = rounds.write_clips(rows, people, videos)
        swapped = rounds.write_triples(kept, people, swapper)
        summary = _summary(rows, swapped)
        files.replace_text(out / REPORT, json.dumps(rows, indent=1))
        reasons = hdtf.REASONS | quality.REASONS
        gates = dataclasses.asdict(config.gates)
        about = {"reasons": reasons, "gates": gates, "identities": people.report()}
        page.write(out, rows, about)
        done = {"settings": settings, "summary": summary}
        files.replace_text(out / "build.json", json.dumps(done, indent=1))
        shutil.rmtree(work)
    print(f"{out}: {_sentence(summary)}")
    return summary


def _settings(config):
    """What the shards depend on, as build.json keeps it."""
    made = config.source == "synthetic"
    if (
        not (config.source or config.manifest)
        or (made and (config.manifest or config.lists))
        or (config.lists and (config.manifest or not config.source))
    ):
        raise BuildError(
            "give --source=synthetic, or a folder as --source, alone or with --lists (HDTF's),"
            " or a --manifest (JSON)"
        )
    if config.unsure not in ("refuse", "keep"):
        raise BuildError(f"--unsure={config.unsure}: there are refuse and keep")
    settings = dataclasses.asdict(config)
    settings["proxy"] = config.proxy or ("exact" if made else "classical")
    for name in ("out", "workers"):
        settings.pop(name)
    for name in ("source", "manifest", "lists", "proxy_model", "proxy_recogniser"):
        if settings[name] and not (made and name == "source"):
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


@contextlib.contextmanager
def _alone(work):
    """The folder of a build at work, which only one process may have."""
    work.mkdir(parents=True, exist_ok=True)
    with open(work / "lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BuildError(f"{work.parent}: another build is at work here; wait for it") from None
        yield


# Videos ------------------------------------------------------------------------------------------


def _videos(config, out):
    """(what there is to read, none yet of the synthetic set; rows of what is not there)."""
    if config.manifest:
        manifest = pathlib.Path(config.manifest)
        return listing.from_manifest(manifest, pathlib.Path(config.source or manifest.parent)), []
    if config.source == "synthetic":
        return [], []
    if config.proxy == "exact":
        raise BuildError("--proxy=exact is for the synthetic set; take --proxy=classical")
    if config.lists:
        found, left = hdtf.from_hdtf(pathlib.Path(config.lists), pathlib.Path(config.source))
        return found, _left_out(left)
    return listing.from_folder(pathlib.Path(config.source), leave_out=out), []


def _left_out(told):
    """Rows, as faces.clips returns them, of what hdtf.from_hdtf tells of each video."""
    rows = {}
    for line in told:
        name, refused = line["video"], {"clip": line["video"]} | line
        row = {"video": name, "identity": None, "split": None, "refused": [], "clips": []}
        del refused["video"]
        rows.setdefault(name, row)["refused"].append(refused)
    return list(rows.values())


def _draw(config, out):
    """The videos of the synthetic set, made now unless they stand already."""
    val = config.val_identities
    try:
        manifest = sampling.write(
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
    return listing.from_manifest(manifest)


# Saying so ---------------------------------------------------------------------------------------


def _tell_refused(out, rows):
    """Counts by reason, on the screen. Raises BuildError where nothing is left."""
    refused = collections.Counter(_refused(rows))
    if refused:
        counts = ", ".join(f"{n} {reason}" for reason, n in refused.most_common())
        print(f"left out: {counts}; {out / REPORT} tells of each", flush=True)
    if not any(row["clips"] for row in rows):
        files.replace_text(out / REPORT, json.dumps(rows, indent=1))
        raise BuildError(f"none of the {len(rows)} videos could be used; see {out / REPORT}")


def _refused(rows):
    """Reasons of what was left out. What HDTF's lists lack is told, but leaves nothing out."""
    reasons = [refused["reason"] for row in rows for refused in row["refused"]]
    return [reason for reason in reasons if reason != "annotation"]


def _summary(rows, swapped):
    frames = dict.fromkeys(listing.SPLITS, 0)
    for row in rows:
        for clip in row["clips"]:
            frames[clip["split"]] += clip["frames"]
    return {
        "videos": sum(bool(row["clips"] or _refused([row])) for row in rows),
        "clips": sum(len(row["clips"]) for row in rows),
        "refused": len(_refused(rows)),
        "frames": frames,
        "triples": swapped,
    }


def _sentence(summary):
    parts = [
        f"{summary['videos']} videos: {summary['clips']} clips kept, {summary['refused']} left out"
    ]
    for kind in ("frames", "triples"):
        parts += [f"{n} {kind} in {split}" for split, n in summary[kind].items()]
    return ", ".join(parts)


def _parse(argv):
    """Command line -> (Config, options for Beam). Not absl flags, global to every importer."""
    parser = command.Parser(
        prog="python -m data_pipelines.build",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--out", required=True)
    own = [f for f in dataclasses.fields(Config) if f.name not in ("out", "gates")]
    gates = dataclasses.fields(quality.Gates)
    for field in own:
        default = os.cpu_count() if field.name == "workers" else field.default
        _add(parser, f"--{field.name}", field.type, default)
    for field in gates:
        _add(parser, f"--gate_{field.name}", field.type, field.default)
    parsed, beam = parser.parse_known_args(argv[1:])
    if beam and not any(option.startswith("--runner") for option in beam):
        parser.error(f"unknown: {' '.join(beam)} (options of Beam need --runner=...)")
    parsed = vars(parsed)
    chosen = quality.Gates(**{f.name: parsed[f"gate_{f.name}"] for f in gates})
    names = ["out", *(f.name for f in own)]
    return Config(gates=chosen, **{name: parsed[name] for name in names}), tuple(beam)


def _add(parser, name, kind, default):
    parser.add_argument(name, type=kind, default=default, help=f"default: {default}")


def main(parsed):
    """Command line: returns the exit code."""

    def work():
        build(*parsed)

    stopped = "stopped; what is done is kept, run the same command again"
    code = command.run("build", work, stopped=stopped)
    if code == STOPPED:
        sys.stdout.flush()
        os._exit(code)  # Beam's threads would go on, and print that their peers are gone
    return code


if __name__ == "__main__":
    app.run(lambda parsed: sys.exit(main(parsed)), flags_parser=_parse)

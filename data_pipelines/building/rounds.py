"""The rounds of a build: what each round's jobs are, and what their results mean for the next.

A round runs its jobs (jobs.py) wherever the runner puts them and reads what they
left. All that is decided here is a function of the videos and the settings, so a build that was
stopped plans the same again and finds its jobs done.
"""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Callable, Iterable

import numpy as np

from data_pipelines import av_offset
from data_pipelines.building import cutting, jobs
from data_pipelines.faces import quality
from data_pipelines.people import identities
from data_pipelines.proxies import pairing
from data_pipelines.rates import FRAME_RATE, SAMPLE_RATE
from data_pipelines.records import reader
from data_pipelines.records.shards import Shards
from data_pipelines.sources import listing

# Shards are of this size, smaller where there would be fewer than 16 of them: they stay copyable,
# and there are enough for all workers. HDTF at 512 px fills about 450.
SHARD_BYTES = 256 << 20
TRIPLES = 256, 1024  # in a shard, at least and at most


@dataclasses.dataclass(frozen=True)
class Rounds:
    """What all rounds of a build share."""

    config: object  # build.Config
    settings: dict  # what the shards depend on
    out: pathlib.Path
    work: pathlib.Path  # of this build alone; what a stopped build goes on from
    run: Callable  # (what, function, jobs, finished), see runner.run

    @property
    def drawn(self) -> bool:
        """Whether this is the synthetic set, of which everything is known."""
        return self.config.source == "synthetic"

    def cut(self, videos: list[listing.Video]) -> list[dict]:
        """Videos -> clip files; returns the rows of cutting.clips in the order of the videos."""
        for name in ("rows", "clips"):
            (self.work / name).mkdir(exist_ok=True)
        config, todo = self.config, []
        longest = round(config.max_seconds * FRAME_RATE)
        folder, cache = self.work / "clips", self.out / "landmarks"
        for video in videos:
            gates, silent = config.gates, config.silent
            job = cutting.Job(video, config.size, longest, folder, cache, gates, silent)
            todo.append((job, self.work / "rows" / f"{_key(video)}.json"))
        self.run("videos", jobs.cut, todo, jobs.is_cut)
        return [json.loads(path.read_text()) for _, path in todo]

    def correct_offsets(self, rows: list[dict]) -> None:
        """Notes in the rows of all clips how late their sound is.

        Clips of which it cannot be told become refused, unless the corpus is too small to know.
        """
        clips = [(row, clip) for row in rows for clip in row["clips"] if jobs.has_sound(clip)]
        if self.drawn or not clips:
            return
        several = len({row["identity"] for row, _ in clips}) > 1
        group = {row["video"]: row["identity" if several else "video"] for row, _ in clips}
        model, folder = self.work / "offset-model.npz", self.work / "clips"
        if not model.exists():
            chosen = set(av_offset.sample(clip["name"] for _, clip in clips))
            av_offset.calibrate(
                jobs.heard(clip, group[row["video"]], folder)
                for row, clip in clips
                if clip["name"] in chosen
            ).save(model)
        (self.work / "offsets").mkdir(exist_ok=True)
        results = {
            clip["name"]: self.work / "offsets" / f"{clip['file']}.json" for _, clip in clips
        }
        todo = [(model, c, group[row["video"]], folder, results[c["name"]]) for row, c in clips]
        self.run("offsets", jobs.measure_offset, todo, jobs.offset_is_measured)
        model = av_offset.load(model)
        for row in (row for row in rows if any(map(jobs.has_sound, row["clips"]))):
            found = [jobs.read_offset(results[clip["name"]]) for clip in row["clips"]]
            self._note_offsets(row, found, model)

    def _note_offsets(self, row, found, model):
        """A clip that is too short to tell takes what the clips of its video tell together."""
        together, kept = model.together(found), []
        for clip, own in zip(row["clips"], found, strict=True):
            taken = own if own.sure else together
            frames = taken.frames if taken.sure else 0
            clip["measures"] |= {"offset": frames, "offset_sure": taken.sure}
            if taken.sure or not model.anchored or self.config.unsure == "keep":
                kept.append(clip)
                continue
            detail = f"the best guess is {own.frames} frames, at {own.confidence:.1f} nats"
            refused = {"clip": clip["name"], "reason": quality.OFFSET_UNSURE, "detail": detail}
            row["refused"].append(refused | {"measures": clip["measures"]})
        row["clips"] = kept

    def people(self, rows: list[dict]) -> identities.Identities:
        """Whose the clips are that are kept, and on which side of the split each stands."""
        told = bool(self.config.manifest) or self.drawn
        # dlib takes many drawn people for one.
        same = 0 if self.drawn else self.config.same_face
        return identities.resolve(identities.clips_of(rows), told, same)

    def write_clips(
        self, rows: list[dict], people: identities.Identities, videos: Iterable[listing.Video]
    ) -> dict[str, list[jobs.ShardClip]]:
        """Makes `frames` and `clips`; returns the clips by split, in the order of the records.

        In each split the frames of clips with sound come first, so `clips` describes the front of
        `frames` without a gap; those of stills and silent videos follow. Notes each clip's label
        and split in its row, and of what has no sound its first record in `frames`.
        """
        numbers = {label: number for number, label in enumerate(people.names())}
        drawn = {video.name: video.synthetic for video in videos}
        kept = {split: [] for split in listing.SPLITS}
        clips = [(row, clip) for row in rows for clip in row["clips"]]
        for row, clip in sorted(clips, key=lambda pair: not jobs.has_sound(pair[1])):
            label, split = people.labels[clip["name"]], people.splits[clip["name"]]
            clip |= {"label": label, "split": split}
            own, late = kept[split], clip["measures"].get("offset", 0)
            first = own[-1].first + own[-1].row["frames"] if own else 0
            clip |= {} if jobs.has_sound(clip) else {"record": first}
            known = row["video"], numbers[label], label, split, first, late
            own.append(jobs.ShardClip(clip, *known, drawn[row["video"]]))
        heard = {s: [c for c in own if jobs.has_sound(c.row)] for s, own in kept.items()}
        self._write_shards(kept, heard, people)
        return heard

    def _write_shards(self, kept, heard, people):
        """kept: all clips by split, those that are `heard` in front."""
        metadata = self._metadata(people) | {"fps": FRAME_RATE, "rate": SAMPLE_RATE}
        frames, clips = (Shards(self.out, kind, metadata) for kind in ("frames", "clips"))
        size = sum(clip.row["bytes"] for own in kept.values() for clip in own)
        todo, of_frames, of_clips = [], {}, {}
        for split, own in kept.items():
            front = _parts(heard[split], min(SHARD_BYTES, size // 16))
            rest = _parts(own[len(heard[split]) :], min(SHARD_BYTES, size // 16))
            of_clips[split], of_frames[split] = len(front), len(front) + len(rest)
            for i, part in enumerate(front + rest):
                sounds = clips if i < len(front) else None
                todo.append((frames, sounds, split, i, part, self.work / "clips"))
        self.run("shards", jobs.write_clips, todo, jobs.clips_are_written)
        frames.publish(of_frames)
        if any(of_clips.values()):
            clips.publish(of_clips)

    def _metadata(self, people):
        text = json.dumps(self.settings, sort_keys=True)
        trained = {label for clip, label in people.labels.items() if people.splits[clip] == "train"}
        return {
            "size": self.config.size,
            "identities": people.names(),
            "train_identities": len(trained),
            "source": self.config.manifest or self.config.source,
            "build": hashlib.sha256(text.encode()).hexdigest()[:16],
        }

    def write_triples(
        self,
        kept: dict[str, list[jobs.ShardClip]],
        people: identities.Identities,
        swapper: Callable,
    ) -> dict[str, int]:
        """Makes `triples` with a proxy swapper (choice.make); returns their number by split."""
        name, config, plans = self.settings["proxy"], self.config, {}
        wanted = {"train": config.triples, "val": config.val_triples}
        for number, split in enumerate(listing.SPLITS if config.triples else ()):
            runs = [_run(clip, name) for clip in kept[split]]
            plans[split] = pairing.plan(runs, wanted[split], (config.seed, number))
            if not plans[split]:
                print(f"no triples in {split}: they need two identities with sound", flush=True)
        total = sum(map(len, plans.values()))
        if not total:
            return {}
        made = Shards(self.out, "triples", self._metadata(people) | {"proxy": name})
        least, most = TRIPLES
        step = max(least, min(most, total // 64))
        todo, counts = [], {}
        for split, pairs in plans.items():
            parts = [pairs[i : i + step] for i in range(0, len(pairs), step)]
            counts[split] = len(parts)
            todo += [(made, split, i, swapper, part) for i, part in enumerate(parts)]
        self.run("triples", jobs.write_triples, todo, jobs.triples_are_written)
        made.publish(counts)
        return {split: sum(n) for split, n in reader.splits(self.out, "triples").items()}


def _key(video):
    """A name for a video as it is now; one that was changed is read again."""
    try:
        known = video.path.stat()
        state = f"{known.st_size} {known.st_mtime_ns}"
    except OSError:
        state = "missing"
    return hashlib.sha256(f"{video.name} {state}".encode()).hexdigest()[:24]


def _parts(clips, size):
    """Clips in order, in parts that end where they reach `size` bytes."""
    parts, filled = [], size
    for clip in clips:
        if filled >= size:
            parts.append([])
            filled = 0
        parts[-1].append(clip)
        filled += clip.row["bytes"]
    return parts


def _run(clip, swapper):
    """A clip as pairing.plan takes it. The exact proxy does every pair equally well."""
    run = pairing.Run(clip.identity, clip.first, clip.row["frames"], clip.synthetic)
    if swapper == "exact":
        return run
    pose, light = (np.float32(x) for x in (clip.row["pose"], clip.row["measures"]["light"]))
    return dataclasses.replace(run, pose=pose, light=light)

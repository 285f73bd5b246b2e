"""The jobs of a build: functions of their arguments that leave files (runner.py).

A build goes in rounds: `cut` makes clip files of each video; `measure_offset` tells by how much
the sound of each is late, with a model that all clips together taught; with all of them known, and
so who is who, `write_clips` makes the shards of frames and clips; `write_triples` swaps faces.
"""

import dataclasses
import json
import pathlib

import numpy as np

from data_pipelines import av_offset, files, mouth_and_sound
from data_pipelines.building import clip_files, cutting
from data_pipelines.proxies import choice, pairing
from data_pipelines.records.shards import Shards


def cut(job: cutting.Job, row: pathlib.Path) -> None:
    """Cuts a video into clip files and leaves its row (see cutting.clips) as JSON."""
    made = cutting.clips(job)
    for clip in made["clips"]:  # by which shards are planned, when the files may be gone
        clip["bytes"] = (job.folder / clip["file"]).stat().st_size
    files.replace_text(row, json.dumps(made))


def has_sound(clip: dict) -> bool:
    """Whether a clip, by its row, has sound: frames alone are made of the others."""
    return clip.get("sound", True)


def is_cut(job: cutting.Job, row: pathlib.Path) -> bool:
    """Whether the video's row stands."""
    del job
    return row.exists()


def heard(clip: dict, group: str, folder: pathlib.Path) -> mouth_and_sound.MouthAndSound:
    """A clip's mouth and sound, as A/V offsets are measured on them; clip: its row."""
    return mouth_and_sound.MouthAndSound(
        clip["name"], group, *_arrays(folder / clip["file"], "mouth", "audio")
    )


def _arrays(path, *names):
    """Some of a clip file's arrays; the pictures, nearly all of it, are not read for them."""
    with np.load(path, allow_pickle=False) as data:
        return [data[name] for name in names]


def measure_offset(
    model: pathlib.Path, clip: dict, group: str, folder: pathlib.Path, result: pathlib.Path
) -> None:
    """Measures a clip's A/V offset and leaves it as JSON, see `read_offset`."""
    found = dataclasses.asdict(av_offset.load(model).measure(heard(clip, group, folder)))
    found["curve"] = found["curve"].tolist()
    files.replace_text(result, json.dumps(found))


def offset_is_measured(*job) -> bool:
    """Whether the clip's offset stands."""
    return job[-1].exists()


def read_offset(result: pathlib.Path) -> av_offset.Offset:
    """What measure_offset left."""
    found = json.loads(result.read_text())
    return av_offset.Offset(**found | {"curve": np.array(found["curve"], np.float32)})


@dataclasses.dataclass(frozen=True)
class ShardClip:
    """A clip that is kept, and what the other clips tell of it."""

    row: dict  # of cutting.clips
    video: str
    identity: int
    identity_name: str
    split: str
    first: int  # index of its first record in `frames`
    offset: int = 0  # frames by which its sound comes late
    synthetic: dict | None = None


def write_clips(
    frames: Shards,
    clips: Shards | None,
    split: str,
    shard: int,
    own: list[ShardClip],
    folder: pathlib.Path,
) -> None:
    """Writes a shard of `frames` and one of `clips` from clip files, which then go.

    clips: None where the files have no sound.
    """

    def pictures():
        for clip in own:
            data = clip_files.load(folder / clip.row["file"])
            for i, image in enumerate(data["images"]):
                yield {
                    "image": image,
                    "landmarks": data["landmarks"][i],
                    "matrix": data["matrices"][i],
                    "identity": clip.identity,
                    "clip": data["name"],
                    "frame": data["first"] + i,
                }

    def sounds():
        for clip in own:
            (sound,) = _arrays(folder / clip.row["file"], "audio")
            meta = {"file": clip.video, "offset": clip.offset}
            meta |= {"synthetic": clip.synthetic} if clip.synthetic else {}
            name = clip.row["name"]
            yield {
                "name": name,
                "identity": clip.identity,
                "identity_name": clip.identity_name,
                "first": clip.first,
                "frames": clip.row["frames"],
                "audio": clip_files.cut_audio({"name": name, "audio": sound}, clip.offset),
                "meta": json.dumps(meta),
            }

    frames.write(split, shard, pictures())
    if clips is not None:
        clips.write(split, shard, sounds())
    for clip in own:
        (folder / clip.row["file"]).unlink(missing_ok=True)


def clips_are_written(frames: Shards, clips: Shards | None, split: str, shard: int, *_) -> bool:
    """Whether the shards stand that write_clips makes."""
    return all(made.finished(split, shard) for made in (frames, clips) if made is not None)


def write_triples(
    made: Shards, split: str, shard: int, swapper: choice.Proxy, pairs: list[pairing.Pair]
) -> None:
    """Swaps the faces of pairs of frames that stand, and writes the shard.

    A pair that the swapper cannot do is left out.
    """
    fields = ("source", "target", "source_identity", "target_identity")
    results = pairing.swap(made.root, split, swapper, pairs)
    made.write(
        split,
        shard,
        (
            {name: getattr(pair, name) for name in fields} | {"result": image}
            for pair, image in zip(pairs, results, strict=True)
            if image is not None
        ),
    )


def triples_are_written(made: Shards, split: str, shard: int, *_) -> bool:
    """Whether the shard stands."""
    return made.finished(split, shard)

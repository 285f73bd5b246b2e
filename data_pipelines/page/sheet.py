"""Pictures out of a build's records, by which a person judges the data at one look."""

import collections
import dataclasses
import json
import pathlib

import cv2
import numpy as np

from data_pipelines.records import kinds, reader

COLUMNS = 8  # faces of one identity


@dataclasses.dataclass(frozen=True)
class ClipFrames:
    """What of a clip's record tells where its pictures are: all but its sound."""

    split: str
    identity: str
    video: str
    first: int  # index of its first record in `frames` of the split
    count: int


def clips(out: pathlib.Path) -> list[ClipFrames]:
    """Every clip of a build's folder, in the order of its records; none where nothing has sound."""
    found = []
    if not (out / "clips").exists():
        return found
    for split in reader.splits(out, "clips"):
        source = reader.source(out, "clips", split)
        for clip in (source[i] for i in range(len(source))):
            video = json.loads(clip["meta"])["file"]
            place = int(clip["first"]), int(clip["frames"])
            found.append(ClipFrames(split, clip["identity_name"], video, *place))
    return found


def soundless(rows: list[dict]) -> list[ClipFrames]:
    """The frames of stills and silent videos, which are no clips; rows: of a build."""
    return [
        ClipFrames(clip["split"], clip["label"], row["video"], clip["record"], clip["frames"])
        for row in rows
        for clip in row["clips"]
        if "record" in clip
    ]


def identities(clips: list[ClipFrames]) -> dict[tuple[str, str], list[ClipFrames]]:
    """{(split, name): clips}, sorted."""
    groups = collections.defaultdict(list)
    for clip in clips:
        groups[clip.split, clip.identity].append(clip)
    return dict(sorted(groups.items()))


def frames(out: pathlib.Path) -> dict[str, reader.Source]:
    """{split: its frames}, opened once for many pictures."""
    return {split: reader.source(out, "frames", split) for split in reader.splits(out, "frames")}


def strip(frames: dict[str, reader.Source], own: list[ClipFrames], side: int) -> np.ndarray:
    """COLUMNS faces spread over an identity's clips, side by side: uint8 [side 8*side 3].

    Spread over the clips first, then over the time in them: of one clip its whole length, of many
    clips one frame of every n-th.
    """
    count = min(len(own), COLUMNS)
    chosen = [own[i * len(own) // count] for i in range(count)]
    images = []
    for i in range(COLUMNS):
        clip = chosen[i * count // COLUMNS]
        images.append(_frame(frames, clip, (i + 0.5) / COLUMNS))
    return np.hstack([_sized(image, side) for image in images])


def portraits(
    frames: dict[str, reader.Source], clips: list[ClipFrames], videos: set[str], side: int
) -> dict[str, np.ndarray]:
    """{video: uint8 [side side 3]} from the middle of the first clip of each that has clips."""
    firsts = {}
    for clip in clips:
        if clip.video in videos:
            firsts.setdefault(clip.video, clip)
    return {name: _sized(_frame(frames, clip, 0.5), side) for name, clip in firsts.items()}


def triples(out: pathlib.Path, count: int, side: int) -> tuple[dict, dict]:
    """({split: number}, {split: [(source, target, result), ...]}), pictures uint8 [side side 3].

    Of each split at most `count` triples, evenly spread. Two empty dicts where none were made.
    """
    numbers, pictures = {}, {}
    if not (out / "triples").exists():
        return numbers, pictures
    pool = frames(out)
    for split in reader.splits(out, "triples"):
        source = reader.source(out, "triples", split)
        numbers[split], pictures[split] = len(source), []
        shown = min(count, len(source))
        for triple in (source[i * len(source) // shown] for i in range(shown)):
            faces = [pool[split][int(triple[kind])]["image"] for kind in ("source", "target")]
            images = [kinds.decode_image(data) for data in (*faces, triple["result"])]
            pictures[split].append(tuple(_sized(image, side) for image in images))
    return numbers, pictures


def _frame(frames, clip, at):
    index = clip.first + int(at * clip.count)
    return kinds.decode_image(frames[clip.split][index]["image"])


def _sized(image, side):
    return cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)

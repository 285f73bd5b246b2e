"""Which videos a build reads, whose they are, and on which side of the split they stand."""

import collections
import dataclasses
import hashlib
import json
import pathlib
import re
from typing import Any

SUFFIXES = set(".mp4 .mov .mkv .avi .webm .mpg .mpeg .m4v .ts .wmv .flv .3gp".split())
SPLITS = ("train", "val")


class SourceError(ValueError):
    """One clear line: which manifest, row or folder, what is wrong with it, what to do."""


@dataclasses.dataclass(frozen=True)
class Video:
    """One video to build from."""

    path: pathlib.Path
    name: str  # unique: its path below the source or the manifest, with "/"
    identity: str
    split: str  # "train" or "val"
    synthetic: dict[str, Any] | None = None  # how to draw it again, see synthetic.clip_of


def from_manifest(manifest: pathlib.Path, folder: pathlib.Path | None = None) -> list[Video]:
    """Videos of a JSON list of rows {"file", "identity", "split"?, "kind"?, "synthetic"?}.

    "file" is relative to `folder`, by default the manifest's. Rows of another kind than "talking"
    are passed over. Identities without a split get one as in `from_folder`.

    Raises:
      SourceError: no such file, not a list of rows, a row without file or identity, a file named
        twice, an unknown split, or an identity on both sides of the split.
    """
    try:
        rows = json.loads(manifest.read_text())
    except (OSError, ValueError) as error:
        raise SourceError(f"{manifest}: not a readable JSON file ({error})") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise SourceError(f"{manifest}: must be a JSON list of objects")
    videos = []
    for i, row in enumerate(rows):
        if row.get("kind", "talking") != "talking":
            continue
        if "file" not in row or "identity" not in row:
            raise SourceError(f"{manifest}: row {i} must have a file and an identity")
        path, split = (folder or manifest.parent) / row["file"], row.get("split")
        if split not in (*SPLITS, None):
            raise SourceError(f"{manifest}: row {i} has split {split!r}, not train or val")
        made = row.get("synthetic")
        videos.append(Video(path, row["file"], str(row["identity"]), split, made))
    return _checked(videos, manifest)


def from_folder(folder: pathlib.Path, leave_out: pathlib.Path | None = None) -> list[Video]:
    """All videos below a folder, except those below `leave_out`.

    Identity: the name of the folder that the video lies in, or, for videos directly in `folder`,
    the file's name without trailing digits (WDA_DebbieStabenow0 and ...1 are one person; taking
    two people for one costs little, one person on both sides of the split spoils every figure).
    Split: by a hash of the identity, 9 of 10 train, so it holds when identities are added.

    Raises SourceError when there is no such folder or no video in it.
    """
    if not folder.is_dir():
        raise SourceError(f"{folder}: no such folder; --source takes a folder or 'synthetic'")
    videos = []
    for path in sorted(folder.rglob("*")):
        inside = leave_out is not None and path.is_relative_to(leave_out)
        if path.suffix.lower() not in SUFFIXES or inside or not path.is_file():
            continue
        relative = path.relative_to(folder)
        stem = re.sub(r"[\d\s_.-]+$", "", path.stem) or path.stem
        identity = path.parent.name if len(relative.parts) > 1 else stem
        videos.append(Video(path, relative.as_posix(), identity, None))
    return _checked(videos, folder)


def _checked(videos, where):
    if not videos:
        raise SourceError(f"{where}: holds no video ({' '.join(sorted(SUFFIXES))})")
    name, times = collections.Counter(v.name for v in videos).most_common(1)[0]
    if times > 1:
        raise SourceError(f"{where}: {name} is named {times} times")
    videos = _split(videos)
    sides = collections.defaultdict(set)
    for video in videos:
        sides[video.identity].add(video.split)
    for identity, splits in sides.items():
        if len(splits) > 1:
            raise SourceError(
                f"{where}: identity {identity} is in train and in val; validation would measure"
                " memory, so put all of its videos on one side"
            )
    return videos


def _split(videos):
    """Gives a side to those without one: 9:1 by a hash of the identity, at least one in val."""
    open_ones = {v.identity for v in videos if v.split is None}
    order = sorted(open_ones, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    val = {n for n in order if int(hashlib.sha256(n.encode()).hexdigest(), 16) % 10 == 0}
    if not val and len(order) > 1:
        val = {order[0]}
    return [
        video
        if video.split
        else dataclasses.replace(video, split="val" if video.identity in val else "train")
        for video in videos
    ]


def identities(videos: list[Video]) -> list[str]:
    """Names in the order of their numbers: train first, so train classes are 0 ... n - 1."""
    return [
        name
        for split in SPLITS
        for name in sorted({v.identity for v in videos if v.split == split})
    ]

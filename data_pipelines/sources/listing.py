"""Which videos and stills a build reads, whose they are, and what of each may be used."""

import collections
import dataclasses
import itertools
import json
import pathlib
import re
from fractions import Fraction
from typing import Any

from data_pipelines.errors import SwapTalkError

SUFFIXES = set(".mp4 .mov .mkv .avi .webm .mpg .mpeg .m4v .ts .wmv .flv .3gp".split())
STILLS = set(".jpg .jpeg .png .webp .bmp .tif .tiff .heic .heif .avif".split())
SPLITS = ("train", "val")


class SourceError(SwapTalkError, ValueError):
    """One clear line: which manifest, row or folder, what is wrong with it, what to do."""


@dataclasses.dataclass(frozen=True)
class Video:
    """One video to build from, one interval of it, or one still picture."""

    path: pathlib.Path
    name: str  # unique: its path below the folder, with "/"; "@0", "@1" ... tell intervals apart
    identity: str
    split: str | None  # "train" or "val"; None: nobody has decided
    synthetic: dict[str, Any] | None = None  # how to draw it again, see sampling.clip_of
    start: Fraction = Fraction(0)  # seconds after the first frame: what may be used begins
    end: Fraction | None = None  # ... and ends; None: with the file
    # x, y, w, h in pixels of the upright picture: where to look for the face; None: anywhere
    region: tuple[int, int, int, int] | None = None

    @property
    def still(self) -> bool:
        """Whether it is a still picture, by its suffix."""
        return self.path.suffix.lower() in STILLS


def from_manifest(manifest: pathlib.Path, folder: pathlib.Path | None = None) -> list[Video]:
    """Videos and stills of a JSON list of rows {"file", "identity"} with any of {"split",
    "synthetic", "start", "end", "region"}, see Video.

    "file" is relative to `folder`, by default the manifest's, and lies below it. Times are seconds,
    as numbers or as text ("0.04", "1/25"). A file may have several rows, of intervals that do not
    overlap. Stills have no start and no end.

    Raises:
      SourceError: no such file, not a list of rows, a row that is not as described, a file named
        twice, or an identity on both sides of the split.
    """
    try:
        rows = json.loads(manifest.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise SourceError(f"{manifest}: not a readable JSON file ({error})") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise SourceError(f"{manifest}: must be a JSON list of objects")
    videos = []
    for i, row in enumerate(rows):
        try:
            videos.append(_video(row, folder or manifest.parent))
        except SourceError as error:
            raise SourceError(f"{manifest}: row {i} {error}") from None
    return _checked(_told_apart(videos, manifest), manifest)


def _video(row, folder):
    """One row of a manifest; a SourceError says what the row has or lacks."""
    if "file" not in row or "identity" not in row:
        raise SourceError("must have a file and an identity")
    file, split, made = row["file"], row.get("split"), row.get("synthetic")
    if not isinstance(file, str) or not _stays_inside(file):
        raise SourceError(f"has the file {file!r}, which is not a path below {folder}")
    if split not in (*SPLITS, None):
        raise SourceError(f"has split {split!r}, not train or val")
    start, end = (_seconds(row, key) for key in ("start", "end"))
    if end is not None and end <= (start or 0):
        raise SourceError(f"ends at {row['end']} s, not after its start")
    region = row.get("region")
    if region is not None:
        numbers = isinstance(region, list) and all(type(value) is int for value in region)
        if not numbers or len(region) != 4 or min(region[:2]) < 0 or min(region[2:]) < 1:
            raise SourceError(f"has the region {region}, not [x, y, width, height] in pixels")
        region = tuple(region)
    identity = str(row["identity"])
    start = start or Fraction(0)
    video = Video(folder / file, file, identity, split, made, start, end, region)
    if video.still and (start or end is not None):
        raise SourceError(f"has a start or an end, but {file} is a still picture; leave them out")
    return video


def _stays_inside(file):
    """Whether a name from a manifest leads to a file below its folder, on any system."""
    paths = pathlib.PurePosixPath(file), pathlib.PureWindowsPath(file)
    return bool(file) and not any(p.drive or p.root or ".." in p.parts for p in paths)


def _seconds(row, key):
    """An exact time of a row, or None: 0.04 is meant as 1/25, not as the nearest binary number."""
    value = row.get(key)
    if value is None:
        return None
    try:
        seconds = Fraction(str(value)) if type(value) in (int, float, str) else Fraction(-1)
    except (ValueError, ZeroDivisionError):
        seconds = Fraction(-1)
    if seconds < 0:
        raise SourceError(f"has the {key} {value!r}, not a time in seconds")
    return seconds


def _told_apart(videos, where):
    """Numbers the intervals of a file with several rows; raises SourceError where they overlap."""
    rows = collections.defaultdict(list)
    for video in videos:
        rows[video.name].append(video)
    for name, same in rows.items():
        same.sort(key=lambda video: video.start)
        for a, b in itertools.pairwise(same):
            if a.end is None or a.end > b.start:
                raise SourceError(
                    f"{where}: {name} is named {len(same)} times; give its rows a start and an"
                    " end each, and let them not overlap"
                )
    return [
        dataclasses.replace(video, name=f"{video.name}@{rows[video.name].index(video)}")
        if len(rows[video.name]) > 1
        else video
        for video in videos
    ]


def video_files(folder: pathlib.Path, suffixes: set[str] = SUFFIXES) -> list[pathlib.Path]:
    """All files below a folder that are videos by their suffix, in the order of their names."""
    return [p for p in sorted(folder.rglob("*")) if p.suffix.lower() in suffixes and p.is_file()]


def from_folder(
    folder: pathlib.Path, leave_out: pathlib.Path | None = None, own: bool = False
) -> list[Video]:
    """All videos and stills below a folder, except those below `leave_out`.

    Identity: the name of the folder that the video lies in, or, for videos directly in `folder`,
    the file's name without trailing digits (WDA_DebbieStabenow0 and ...1 are one person; taking
    two people for one costs little, one person on both sides of the split spoils every figure).
    A still directly in `folder` is an identity of its own, and so is each still where `own` is set.
    The split is left open.

    Raises SourceError when there is no such folder or nothing to read in it.
    """
    if not folder.is_dir():
        raise SourceError(f"{folder}: no such folder; --source takes a folder or 'synthetic'")
    videos = []
    for path in video_files(folder, SUFFIXES | STILLS):
        if leave_out is not None and path.is_relative_to(leave_out):
            continue
        relative = path.relative_to(folder)
        stem = re.sub(r"[\d\s_.-]+$", "", path.stem) or path.stem
        name, inside = relative.as_posix(), len(relative.parts) > 1
        still = path.suffix.lower() in STILLS
        if still and (own or not inside):
            identity = name
        else:
            identity = path.parent.name if inside else stem
        videos.append(Video(path, name, identity, None))
    return _checked(videos, folder)


def _checked(videos, where):
    if not videos:
        known = " ".join(sorted(SUFFIXES)), " ".join(sorted(STILLS))
        raise SourceError(f"{where}: holds no video ({known[0]}) and no still ({known[1]})")
    name, times = collections.Counter(v.name for v in videos).most_common(1)[0]
    if times > 1:
        raise SourceError(f"{where}: {name} is named {times} times")
    sides = collections.defaultdict(set)
    for video in videos:
        sides[video.identity].update({video.split} - {None})
    for identity, splits in sides.items():
        if len(splits) > 1:
            raise SourceError(
                f"{where}: identity {identity} is in train and in val; validation would measure"
                " memory, so put all of its videos on one side"
            )
    return videos

"""HDTF (Zhang et al., CVPR 2021): its published lists joined with the videos that a user has.

The lists lie in one folder, five for each of the groups RD, WDA and WRA, one row a line:

    RD_video_url.txt      Radio11 https://...
    RD_annotion_time.txt  Radio11.mp4 00:30-01:00 01:30-02:30     the intervals, called clips
    RD_resolution.txt     Radio11.mp4 720                         lines of the authors' copy
    RD_crop_wh.txt        Radio11_1.mp4 557 478 0 478             clip: x, width, y, height in it
    RD_crop_ratio.txt     Radio11_1.mp4 1.2                       clip: zoom, already in crop_wh

They hold errors (a byte order mark, missing and impossible rows), and every one becomes a row of
the report, never an exception. Nothing is downloaded.
"""

import collections
import dataclasses
import re
from fractions import Fraction
from pathlib import Path

from data_pipelines.media import read_video
from data_pipelines.media.opening import MediaError
from data_pipelines.sources import listing

GROUPS = ("RD", "WDA", "WRA")
KINDS = ("video_url", "annotion_time", "resolution", "crop_wh", "crop_ratio")
# What a row of the report may give as its reason.
REASONS = {
    "annotation": "a row of the published lists cannot be true; what it says was not used",
    "missing": "the lists name the video, but there is no file of it",
    "unlisted": "no list names this file, so it was not used",
    "duplicate": "the same video as another file, so it was not used",
    "unreadable": "the file cannot be decoded",
}
# What cutters put behind a video's name: clip and piece numbers, and how they were made.
_CUT = re.compile(r"((?:_\d+)+)(?:_crop(?:ped)?)?$", re.IGNORECASE)
_YOUTUBE = re.compile(r"(?:[?&]v=|youtu\.be/|/embed/|/shorts/)([\w-]{11})")


@dataclasses.dataclass(frozen=True)
class Interval:
    """One annotated interval of a video."""

    index: int  # its place among the video's intervals, which is the number in its clips' names
    start: Fraction  # seconds
    end: Fraction
    crop: tuple[int, int, int, int] | None = None  # x, y, w, h in `Listed.height` lines
    ratio: Fraction | None = None  # by which the authors enlarged the face's square to get `crop`


@dataclasses.dataclass(frozen=True)
class Listed:
    """What the lists say of one video."""

    name: str  # with its group: "RD_Radio11"
    url: str | None
    height: int | None  # lines of the copy that the crops were measured on
    clips: tuple[Interval, ...]

    @property
    def identity(self) -> str:
        """WDA_AmyKlobuchar of ...0 and ...1; RD's numbers tell people apart, not their videos."""
        return self.name if self.name.startswith("RD_") else re.sub(r"\d+$", "", self.name)


def from_hdtf(lists: Path, videos: Path) -> tuple[list[listing.Video], list[dict]]:
    """One Video for each annotated interval of a file below `videos`, and the report.

    A file belongs to a listed video when its name is the list's, with or without the group and in
    any case, or the address's YouTube id ("Title [id].webm"). Clips that are cut already
    (RD_Radio10_000.mp4, Radio11_1.mp4) are taken whole. Where both are there, the uncut one is.

    Rows of the report: {"video": name, "reason": one of REASONS, "detail": one line}.

    Raises SourceError: no such folders, no lists, or not one file of a listed video.
    """
    listed, report = read(lists)
    if not videos.is_dir():
        raise listing.SourceError(f"{videos}: no such folder; give the folder of HDTF's videos")
    whole, cut, unlisted = _matched(listing.video_files(videos), listed)
    report += [
        _row(path.relative_to(videos).as_posix(), "unlisted", REASONS["unlisted"])
        for path in unlisted
    ]
    found = []
    for name, entry in listed.items():
        files, pieces = whole.get(name, []), cut.get(name, {})
        if files:
            taken, rows = _intervals(entry, files[0], videos)
            report += [
                _row(path.relative_to(videos).as_posix(), "duplicate", f"of {files[0].name}")
                for path in [*files[1:], *(path for part in pieces.values() for path in part)]
            ]
        else:
            taken, rows = _whole_clips(entry, pieces, videos)
        found += taken
        report += rows
    if not found:
        raise listing.SourceError(
            f"{videos}: holds no usable file of the {len(listed)} videos that {lists} names; files"
            " are to be named as there, for example WDA_AdamSchiff.mp4"
        )
    return found, report


def read(lists: Path) -> tuple[dict[str, Listed], list[dict]]:
    """All that the lists say, by name with group, and a row of the report for every oddity.

    Raises SourceError where there is not one list in the folder.
    """
    tables, report = {}, []
    for group in GROUPS:
        for kind in KINDS:
            tables[group, kind], rows = _table(lists / f"{group}_{kind}.txt")
            report += rows
    if not any(tables.values()):
        raise listing.SourceError(
            f"{lists}: holds none of HDTF's lists (RD_video_url.txt and so on); copy the folder"
            " HDTF_dataset of HDTF's repository"
        )
    listed = {}
    for group in GROUPS:
        of = {kind: tables[group, kind] for kind in KINDS}
        clip_names = {_CUT.sub("", name) for kind in KINDS[3:] for name in of[kind]}
        names = dict.fromkeys([*of["video_url"], *of["annotion_time"], *of["resolution"]])
        for name in [*names, *sorted(clip_names - names.keys())]:
            entry, rows = _listed(group, name, of)
            listed[entry.name] = entry
            report += rows
    addresses = collections.defaultdict(list)
    for entry in listed.values():
        addresses[entry.url].append(entry.name)
    for url, names in addresses.items():
        if url and len(names) > 1:
            report += [_row(names[1], "annotation", f"has the same address as {names[0]}: {url}")]
    return listed, report


def _table(path):
    """-> ({name without .mp4: the values behind it}, rows of the report)."""
    if not path.is_file():
        return {}, [_row(path.name, "annotation", f"{path.name}: is not in the folder")]
    table, rows = {}, []
    lines = path.read_bytes().decode("utf-8-sig", errors="replace").splitlines()
    for number, line in enumerate(lines, 1):
        name, *values = line.split() or [""]
        name = re.sub(r"\.mp4$", "", name, flags=re.IGNORECASE)
        if not name:
            continue
        where = f"{path.name}: line {number}"
        if not values:
            rows += [_row(name, "annotation", f"{where} has no value")]
        elif table.get(name, values) != values:
            rows += [_row(name, "annotation", f"{where} contradicts an earlier line")]
        else:
            table[name] = values
    return table, rows


def _listed(group, name, of):
    """Joins the lists' rows of one video -> (Listed, rows of the report)."""
    odd = []
    url = " ".join(of["video_url"].get(name, [])) or None
    if url is None:
        odd += ["has no address"]
    (height,) = _numbers(of["resolution"].get(name), r"\d+", 1) or (None,)
    if not height:
        odd += ["has no usable resolution, so its crops cannot be used"]
    clips = []
    for index, text in enumerate(of["annotion_time"].get(name, [])):
        clip = f"{name}_{index}"
        times = [_seconds(part) for part in text.split("-")]
        if len(times) != 2 or None in times or times[0] >= times[1]:
            odd += [f"interval {index} is {text!r}, not mm:ss-mm:ss"]
            continue
        if any(times[0] < c.end and c.start < times[1] for c in clips):
            odd += [f"interval {index} ({text}) overlaps an earlier one"]
            continue
        crop = _numbers(of["crop_wh"].get(clip), r"\d+", 4)
        ratio = _numbers(of["crop_ratio"].get(clip), r"\d+(\.\d+)?", 1)
        if crop is None:
            odd += [f"interval {index} has no usable crop: the whole picture is searched"]
        else:
            crop = tuple(int(crop[i]) for i in (0, 2, 1, 3))  # listed as x, w, y, h
            if height and (crop[1] + crop[3] > height or not crop[2] or not crop[3]):
                odd += [f"crop {index} leaves a picture of {height} lines, so it is not used"]
                crop = None
        clips += [Interval(index, *times, crop if height else None, ratio and ratio[0])]
    if not clips:
        odd += ["has no usable interval, so it is not used"]
    known = {f"{name}_{i}" for i in range(len(of["annotion_time"].get(name, [])))}
    for clip in dict.fromkeys([*of["crop_wh"], *of["crop_ratio"]]):
        if _CUT.sub("", clip) == name and clip not in known:
            odd += [f"there is a crop {clip}, but no such interval"]
    full = f"{group}_{name}"
    height = int(height) if height else None
    rows = [_row(full, "annotation", f"{full}: {text}") for text in odd]
    return Listed(full, url, height, tuple(clips)), rows


def _seconds(text):
    """mm:ss or hh:mm:ss, seconds with or without a fraction -> Fraction, or None."""
    if not re.fullmatch(r"(\d+:)?\d+:[0-5]?\d(\.\d+)?", text):
        return None
    return sum(Fraction(part) * 60**i for i, part in enumerate(reversed(text.split(":"))))


def _numbers(values, pattern, count):
    """The values as Fractions where there are so many of that form, else None."""
    if values is None or len(values) != count:
        return None
    if not all(re.fullmatch(pattern, value, re.ASCII) for value in values):
        return None
    return [Fraction(value) for value in values]


def _matched(paths, listed):
    """-> ({name: whole files}, {name: {clip number: cut files}}, files of no listed video)."""
    names, ids = collections.defaultdict(list), collections.defaultdict(list)
    for entry in listed.values():
        for key in (entry.name, entry.name.split("_", 1)[1]):
            names[key.casefold()].append(entry.name)
        match = _YOUTUBE.search(entry.url or "")
        if match:
            ids[match[1]].append(entry.name)
    whole, cut, unlisted = collections.defaultdict(list), {}, []
    for path in paths:
        stem = re.sub(r"\.mp4$", "", path.stem, flags=re.IGNORECASE)
        match = _CUT.search(stem)
        # An id may hold "_" and digits, and stands alone, in brackets or behind "-".
        by_id = ids.get(stem[-12:-1] if stem.endswith("]") else stem[-11:], [])
        if len(names.get(stem.casefold(), by_id)) == 1:
            (name,) = names.get(stem.casefold(), by_id)
            whole[name].append(path)
        elif match and len(names.get(stem[: match.start()].casefold(), [])) == 1:
            (name,) = names[stem[: match.start()].casefold()]
            number = int(match[1].split("_")[1])
            cut.setdefault(name, collections.defaultdict(list))[number].append(path)
        else:
            unlisted.append(path)
    return whole, cut, unlisted


def _intervals(entry, path, folder):
    """The Videos of an uncut file, and rows of the report."""
    name = path.relative_to(folder).as_posix()
    try:
        info = read_video.probe(path)
    except MediaError as error:
        return [], [_row(name, "unreadable", str(error))]
    taken, rows = [], []
    for clip in entry.clips:
        if info.duration and clip.start >= info.duration:
            text = f"interval {clip.index} starts at {float(clip.start):g} s"
            text = f"{name}: {text}, but the file ends at {info.duration:.1f} s"
            rows += [_row(name, "annotation", text)]
            continue
        region = _scaled(clip.crop, entry.height, info)
        if clip.crop and not region:
            text = f"crop {clip.index} leaves its picture of {info.width} x {info.height}"
            rows += [_row(name, "annotation", f"{name}: {text}, so it is not used")]
        called = f"{name}@{clip.index}" if len(entry.clips) > 1 else name
        taken += [
            listing.Video(path, called, entry.identity, None, None, clip.start, clip.end, region)
        ]
    return taken, rows


def _scaled(crop, height, info):
    """The crop in pixels of this file; None without one, or where the picture doesn't hold it."""
    if crop is None:
        return None
    scale = Fraction(info.height, height)
    x, y, w, h = (round(value * scale) for value in crop)
    # A pixel of rounding is cut; more means that the list or the file is another one.
    slack = max(2, round(2 * scale))
    if x + w > info.width + slack or y + h > info.height + slack:
        return None
    return x, y, min(w, info.width - x), min(h, info.height - y)


def _whole_clips(entry, pieces, folder):
    """The Videos of clips that are cut already, and rows for what is missing."""
    taken = []
    for paths in pieces.values():
        for path in paths:
            name = path.relative_to(folder).as_posix()
            taken += [listing.Video(path, name, entry.identity, None)]
    address = entry.url or "the lists give no address"
    if not pieces:
        return [], [_row(entry.name, "missing", f"{entry.name}: there is no file; {address}")]
    lost = [str(clip.index) for clip in entry.clips if clip.index not in pieces]
    if lost:
        text = f"{entry.name}: there is no file of clip {', '.join(lost)}; {address}"
        return taken, [_row(entry.name, "missing", text)]
    return taken, []


def _row(name, reason, detail):
    return {"video": name, "reason": reason, "detail": detail}

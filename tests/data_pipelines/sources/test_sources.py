"""Folders, manifests and HDTF's lists become videos; what is wrong in them is one clear line."""

import collections
import json
import re
from fractions import Fraction

import pytest
from media_files import encode, grey

from data_pipelines.sources import hdtf, listing


def test_identities_of_a_folder(tmp_path):
    names = ["WDA_DebbieStabenow0.mp4", "WDA_DebbieStabenow1.mp4", "s1/a.MPG", "s1/b.mov"]
    for name in [*names, "12.mkv", "readme.txt", "out/x.mp4"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    videos = listing.from_folder(tmp_path, leave_out=tmp_path / "out")
    identity = {v.name: v.identity for v in videos}
    assert identity == dict.fromkeys(names[:2], "WDA_DebbieStabenow") | {
        "s1/a.MPG": "s1",
        "s1/b.mov": "s1",
        "12.mkv": "12",
    }
    assert {(v.split, v.start, v.end, v.region) for v in videos} == {(None, 0, None, None)}
    with pytest.raises(listing.SourceError, match="holds no video"):
        listing.from_folder(tmp_path / "out", leave_out=tmp_path / "out")


@pytest.mark.parametrize(
    "own, identities",
    [(False, ["00001.png", "ann", "ann", "bob"]), (True, ["00001.png", "ann/1.jpg", "ann", "bob"])],
)
def test_a_still_is_of_its_folder_or_of_its_own(tmp_path, own, identities):
    for name in ("00001.png", "ann/1.jpg", "ann/1.mp4", "bob7.mp4", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = listing.from_folder(tmp_path, own=own)
    assert [video.identity for video in found] == identities
    assert [video.still for video in found] == [True, True, False, False]


def manifest(folder, rows):
    path = folder / "list.json"
    path.write_text(json.dumps(rows))
    return path


def test_a_manifest_says_what_of_a_file_may_be_used(tmp_path):
    row = {"file": "a/b.mp4", "identity": 7}
    rows = [
        row | {"start": 4.2, "end": "29/3", "region": [0, 10, 400, 400]},
        row | {"start": 0.1, "end": 4.2, "split": "val"},
        {"file": "c.mp4", "identity": "c", "split": "train", "synthetic": {"seed": 1}},
        {"file": "d.JPG", "identity": "d", "kind": "of a list for something else"},
    ]
    first, second, third, still = listing.from_manifest(
        manifest(tmp_path, rows), tmp_path / "there"
    )
    assert still.still and still.identity == "d" and not first.still
    assert first.path == second.path == tmp_path / "there" / "a" / "b.mp4"
    assert [first.name, second.name, third.name] == ["a/b.mp4@1", "a/b.mp4@0", "c.mp4"]
    assert (first.start, first.end) == (Fraction(21, 5), Fraction(29, 3))  # exact, not binary
    assert (first.identity, first.split, first.region) == ("7", None, (0, 10, 400, 400))
    assert (second.split, second.region, second.end) == ("val", None, first.start)
    assert (third.start, third.end, third.synthetic) == (0, None, {"seed": 1})


A = {"file": "a.mp4", "identity": "a"}


@pytest.mark.parametrize(
    "rows, line",
    [
        ({"file": "a"}, "must be a JSON list"),
        ([{"file": "a.mp4"}], "row 0 must have a file and an identity"),
        ([{"file": "a.mp4", "identity": "a", "split": "test"}], "not train or val"),
        ([{"file": "a.mp4", "identity": "a"}] * 2, "named 2 times"),
        ([], "holds no video"),
        ([A | {"file": "a.png", "end": 2}], "a.png is a still picture"),
        (
            [
                {"file": "a.mp4", "identity": "a", "split": "train"},
                {"file": "b.mp4", "identity": "a", "split": "val"},
            ],
            "identity a is in train and in val",
        ),
        ([A | {"file": "../a.mp4"}], "row 0 has the file '../a.mp4', which is not a path below"),
        ([A, A | {"file": "x/../../a.mp4"}], "row 1 has the file"),
        ([A | {"file": "/etc/a.mp4"}], "not a path below"),
        ([A | {"file": "C:\\a.mp4"}], "not a path below"),
        ([A | {"file": "..\\a.mp4"}], "not a path below"),
        ([A | {"file": 3}], "not a path below"),
        ([A | {"file": ""}], "not a path below"),
        ([A | {"start": -1}], "row 0 has the start -1, not a time in seconds"),
        ([A | {"start": "soon"}], "has the start 'soon'"),
        ([A | {"end": float("nan")}], "has the end nan"),
        ([A | {"end": "1/0"}], "has the end '1/0'"),
        ([A | {"start": True}], "has the start True"),
        ([A | {"start": 2, "end": 2}], "row 0 ends at 2 s, not after its start"),
        ([A | {"region": [0, 0, 10]}], r"region \[0, 0, 10\], not \[x, y, width, height\]"),
        ([A | {"region": [0, 0, 0, 10]}], "has the region"),
        ([A | {"region": [0, 0, 1.5, 10]}], "has the region"),
        ([A | {"region": "all"}], "has the region"),
        ([A | {"end": 2}, A | {"start": 1}], "named 2 times; give its rows a start and an end"),
    ],
)
def test_a_wrong_manifest_is_one_clear_line(tmp_path, rows, line):
    with pytest.raises(listing.SourceError, match=line) as caught:
        listing.from_manifest(manifest(tmp_path, rows))
    assert "list.json" in str(caught.value) and "\n" not in str(caught.value)


# HDTF -----------------------------------------------------------------------------------------

LISTS = {
    "RD_video_url": [
        "\ufeffRadio1 https://www.youtube.com/watch?v=aaaaaaaaaaa",
        "Radio11 https://www.youtube.com/watch?v=bbbbb_bb_11&t=6s",
        "Radio12 https://www.youtube.com/watch?v=ccccccccccc",
        "Radio24 https://www.youtube.com/watch?v=ddddddddddd",
    ],
    "RD_annotion_time": ["Radio1.mp4 00:00-00:02 ", "Radio11.mp4 00:01-00:02 00:03-01:00:00"],
    "RD_resolution": ["Radio1.mp4 720", "Radio11.mp4 720", "Radio12 720"],
    "RD_crop_wh": [
        "Radio1_0.mp4 466 535 10 535",
        "Radio11_0.mp4 412 599 0 599",
        "",
        "Radio12_0",
        "Radio12_0 1 2 0 2",
    ],
    "RD_crop_ratio": ["Radio1_0.mp4 1.2", "Radio11_0.mp4 0.85"],
}


def write_lists(folder, lists):
    folder.mkdir()
    for name, lines in lists.items():
        (folder / f"{name}.txt").write_bytes("\r\n".join(lines).encode())
    return folder


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    """Bytes of 5 s of 640 x 360, and of 512 x 512."""
    folder = tmp_path_factory.mktemp("picture")
    wide = encode(folder / "wide.mp4", [grey(90, 360, 640)] * 5, rate=1)
    square = encode(folder / "square.mp4", [grey(90, 512, 512)] * 5, rate=1)
    return wide.read_bytes(), square.read_bytes()


def place(folder, data, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def details(rows, reason):
    return [row["detail"] for row in rows if row["reason"] == reason]


def test_lists_are_read_with_every_oddity_told(tmp_path):
    listed, report = hdtf.read(write_lists(tmp_path / "lists", LISTS))
    assert list(listed) == ["RD_Radio1", "RD_Radio11", "RD_Radio12", "RD_Radio24"]
    clip = hdtf.Interval(0, Fraction(0), Fraction(2), (466, 10, 535, 535), Fraction(6, 5))
    url = "https://www.youtube.com/watch?v=aaaaaaaaaaa"
    assert listed["RD_Radio1"] == hdtf.Listed("RD_Radio1", url, 720, (clip,))
    first, second = listed["RD_Radio11"].clips
    assert (first.crop, first.ratio) == ((412, 0, 599, 599), Fraction(17, 20))
    assert (second.start, second.end, second.crop) == (3, 3600, None)
    told = "\n".join(details(report, "annotation"))
    for line in (
        "RD_Radio11: interval 1 has no usable crop",
        "RD_Radio12: has no usable interval",
        "RD_Radio12: there is a crop Radio12_0, but no such interval",
        "RD_Radio24: has no usable resolution",
        "RD_crop_wh.txt: line 4 has no value",
        "WDA_video_url.txt: is not in the folder",
    ):
        assert line in told
    assert "Radio1:" not in told and len(report) == 16


@pytest.mark.parametrize(
    "kind, line, part",
    [
        ("annotion_time", "Radio1.mp4 00:20", "interval 0 is '00:20', not mm:ss-mm:ss"),
        ("annotion_time", "Radio1.mp4 00:20-00:20", "not mm:ss-mm:ss"),
        ("annotion_time", "Radio1.mp4 00:20-00:61", "not mm:ss-mm:ss"),
        ("annotion_time", "Radio1.mp4 8:10-8:30 00:33-08:53", "interval 1 .* overlaps an earlier"),
        ("annotion_time", "Radio9.mp4 00:00-00:20", "RD_Radio9: has no address"),
        ("resolution", "Radio1.mp4 0", "no usable resolution"),
        ("resolution", "Radio1.mp4 high", "no usable resolution"),
        ("resolution", "Radio1.mp4 720\nRadio1.mp4 1080", "line 2 contradicts an earlier line"),
        ("crop_wh", "Radio1_0.mp4 1 2 3", "no usable crop"),
        ("crop_wh", "Radio1_0.mp4 1 2 3 x", "no usable crop"),
        ("crop_wh", "Radio1_0.mp4 0 776 0 776", "crop 0 leaves a picture of 720 lines"),
        ("video_url", "Radio1 https://x/1\nRadio2 https://x/1", "same address as RD_Radio1"),
        ("video_url", "Radio1", "line 1 has no value"),
    ],
)
def test_rows_that_cannot_be_are_reported_and_not_raised(tmp_path, kind, line, part):
    lists = {name: lines[:1] for name, lines in LISTS.items()} | {f"RD_{kind}": [line]}
    _, report = hdtf.read(write_lists(tmp_path / "lists", lists))
    assert any(re.search(part, row["detail"]) for row in report)
    assert all(set(row) == {"video", "reason", "detail"} for row in report)
    assert not any("\n" in row["detail"] for row in report)


def test_files_are_found_by_the_names_that_people_give_them(tmp_path, picture):
    lists = write_lists(tmp_path / "lists", LISTS)
    names = ["rd_RADIO1.MP4", "deep/Radio11.mkv", "Radio12.mp4", "Radio2.mp4", "notes.txt"]
    videos, report = hdtf.from_hdtf(lists, place(tmp_path / "videos", picture[0], *names))
    assert [v.name for v in videos] == ["rd_RADIO1.MP4", "deep/Radio11.mkv@0", "deep/Radio11.mkv@1"]
    assert [(v.start, v.end) for v in videos] == [(0, 2), (1, 2), (3, 3600)]
    assert [v.identity for v in videos] == ["RD_Radio1", "RD_Radio11", "RD_Radio11"]
    # 720 lines in the list, 360 in the file
    assert [v.region for v in videos] == [(233, 5, 268, 268), (206, 0, 300, 300), None]
    assert {v.split for v in videos} == {None}
    (missing,) = (row for row in report if row["reason"] == "missing")
    assert missing["video"] == "RD_Radio24" and "watch?v=ddddddddddd" in missing["detail"]
    assert [row["video"] for row in report if row["reason"] == "unlisted"] == ["Radio2.mp4"]


def test_files_are_found_by_their_youtube_id(tmp_path, picture):
    lists = write_lists(tmp_path / "lists", LISTS)
    names = ["aaaaaaaaaaa.webm", "Radio hour [bbbbb_bb_11].mp4", "Title-AAAAAAAAAAA.mp4"]
    videos, report = hdtf.from_hdtf(lists, place(tmp_path / "videos", picture[0], *names))
    assert [v.identity for v in videos] == ["RD_Radio11", "RD_Radio11", "RD_Radio1"][::-1]
    assert [row["video"] for row in report if row["reason"] == "unlisted"] == names[2:]


def test_clips_that_are_cut_already_are_taken_whole(tmp_path, picture):
    lists = write_lists(tmp_path / "lists", LISTS)
    names = ["RD_Radio11_000.mp4", "Radio1_0_cropped.mp4", "RD_Radio11_000_WDA_X_001.mp4"]
    videos, report = hdtf.from_hdtf(lists, place(tmp_path / "videos", picture[1], *names))
    assert {(v.name, v.start, v.end, v.region) for v in videos} == {
        (name, 0, None, None) for name in names[:2]
    }
    missing = {row["video"]: row["detail"] for row in report if row["reason"] == "missing"}
    assert "no file of clip 1; https" in missing["RD_Radio11"] and "RD_Radio1" not in missing
    assert [row["video"] for row in report if row["reason"] == "unlisted"] == names[2:]


def test_a_video_that_is_there_twice_is_used_once(tmp_path, picture):
    lists = write_lists(tmp_path / "lists", LISTS)
    names = ["_videos_raw/RD_Radio1.mp4", "RD_Radio1_000.mp4", "Radio1.webm"]
    videos, report = hdtf.from_hdtf(lists, place(tmp_path / "videos", picture[0], *names))
    assert [v.name for v in videos] == ["Radio1.webm"]
    assert {row["video"] for row in report if row["reason"] == "duplicate"} == set(names[:2])


def test_files_that_are_not_what_the_lists_say(tmp_path, picture):
    lists = write_lists(tmp_path / "lists", LISTS)
    folder = place(tmp_path / "videos", picture[1], "Radio1.mp4")
    (folder / "Radio11.mp4").write_text("not a video")
    videos, report = hdtf.from_hdtf(lists, folder)
    (unreadable,) = details(report, "unreadable")
    assert "Radio11.mp4: is not a video" in unreadable
    # a square picture doesn't hold a crop of a wide one
    assert [v.region for v in videos] == [None]
    assert any("crop 0 leaves its picture of 512 x 512" in row["detail"] for row in report)
    late = LISTS | {"RD_annotion_time": ["Radio1.mp4 00:01-00:03 00:06-00:09"]}
    videos, report = hdtf.from_hdtf(write_lists(tmp_path / "late", late), folder)
    assert [(v.name, v.start) for v in videos] == [("Radio1.mp4@0", 1)]
    assert any("starts at 6 s, but the file ends at 5.0 s" in row["detail"] for row in report)


def test_folders_without_lists_or_videos_are_one_clear_line(tmp_path, picture):
    lists = write_lists(tmp_path / "lists", LISTS)
    (tmp_path / "empty").mkdir()
    for pair, line in (
        ((tmp_path / "nowhere", tmp_path / "empty"), "nowhere: holds none of HDTF's lists"),
        ((lists, tmp_path / "nowhere"), "nowhere: no such folder"),
        ((lists, tmp_path / "empty"), "holds no usable file of the 4 videos"),
    ):
        with pytest.raises(listing.SourceError, match=line):
            hdtf.from_hdtf(*pair)


def test_the_published_lists(shared_data):
    listed, report = hdtf.read(shared_data / "hdtf_lists")
    groups = collections.Counter(name.split("_")[0] for name in listed)
    assert groups == {"RD": 57, "WDA": 183, "WRA": 130}
    assert all(entry.url and entry.url.startswith("http") for entry in listed.values())
    # WRA_MittRomney's second interval is a slip of the pen, RD_Radio24 has none
    assert sum(len(entry.clips) for entry in listed.values()) == 66 + 195 + 175 - 1
    assert [name for name, entry in listed.items() if not entry.clips] == ["RD_Radio24"]
    crops = [clip.crop for entry in listed.values() for clip in entry.clips]
    odd = details(report, "annotation")
    assert sum(crop is None for crop in crops) == 14 + 3 + 2  # none, too large, no resolution
    for part in ("MittRomney: interval 1 (00:33-08:53) overlaps", "KevinMcCarthy1: has no usable"):
        assert any(part in line for line in odd)
    assert (
        listed["WDA_CarolynMaloney2"].identity == "WDA_CarolynMaloney"
    )  # behind a byte order mark


def test_people_of_the_published_lists(shared_data):
    """Names without their numbers: 220 people of WDA and WRA, 77 of them in 170 videos."""
    listed, _ = hdtf.read(shared_data / "hdtf_lists")
    videos = collections.Counter(e.identity for e in listed.values() if e.name[:2] != "RD")
    several = [count for count in videos.values() if count > 1]
    assert (len(videos), len(several), sum(several)) == (220, 77, 170)
    radio = {entry.identity for entry in listed.values() if entry.name[:2] == "RD"}
    assert len(radio) == 57  # numbers of the radio's guests, so only faces can tell them


def test_published_lists_joined_with_files(shared_data, tmp_path, picture):
    names = ["WDA_AmyKlobuchar1.mp4", "radio34.mkv", "WRA_DianeBlack0_001.mp4"]
    folder = place(tmp_path, picture[0], *names)
    videos, report = hdtf.from_hdtf(shared_data / "hdtf_lists", folder)
    assert [v.name for v in videos] == ["radio34.mkv@0", "WRA_DianeBlack0_001.mp4"]
    assert len(details(report, "missing")) == 370 - 3 + 1  # of Diane Black's two clips, one is here
    late = [
        row for row in report if row["video"] in names[:2] and "but the file ends" in row["detail"]
    ]
    assert len(late) == 4 + 9

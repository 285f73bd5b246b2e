"""Labels, groups and splits: what hangs together stays together, whatever names say."""

import dataclasses
import itertools
import json

import numpy as np
import pytest

from data_pipelines.faces import landmarker
from data_pipelines.media import read_video
from data_pipelines.people import identities
from data_pipelines.people.identities import FaceClip, IdentityError, resolve
from data_pipelines.sources import listing


def face(person, spread=0.0, seed=0):
    """float32 [128], unit: the same direction for a person, but for a deviation of `spread`."""
    middle = np.random.default_rng([7, person]).normal(size=128)
    off = np.random.default_rng([person, seed]).normal(size=128)
    return _unit(_unit(middle) + spread * _unit(off))


def _unit(x):
    return (x / np.linalg.norm(x)).astype(np.float32)


def clip(identity, person=None, video=None, split=None, k=0, spread=0.15):
    video = video or f"{identity}.mp4"
    name = f"{video}#{k}"
    seed = int.from_bytes(name.encode(), "big") % 2**32
    embedding = None if person is None else face(person, spread, seed)
    return FaceClip(name, video, identity, split, embedding)


def sides(result):
    """{group: set of splits}"""
    found = {}
    for name, group in result.groups.items():
        found.setdefault(group, set()).add(result.splits[name])
    return found


@pytest.fixture
def hdtf(shared_data, tmp_path):
    """The names of HDTF's 370 videos as sources sees them."""
    for part in ("RD", "WDA", "WRA"):
        text = (shared_data / f"hdtf_lists/{part}_video_url.txt").read_text("utf-8-sig")
        for line in text.split("\n"):
            if line.strip():
                (tmp_path / f"{part}_{line.split()[0]}.mp4").touch()
    videos = listing.from_folder(tmp_path)
    assert len(videos) == 370 and len({video.identity for video in videos}) == 221
    return videos


def test_hdtf_by_names_alone_keeps_every_stem_on_one_side(hdtf):
    result = resolve(FaceClip(f"{v.name}#0", v.name, v.identity) for v in hdtf)
    assert all(len(found) == 1 for found in sides(result).values())
    both = {result.splits[f"WDA_DebbieStabenow{k}.mp4#0"] for k in "01"}
    assert len(both) == 1
    by_side = [
        sum(found == {side} for found in sides(result).values()) for side in ("train", "val")
    ]
    assert sum(by_side) == 221 and 0.06 < by_side[1] / 221 < 0.16


def test_hdtf_with_faces_names_the_people_of_the_radio_and_follows_them_elsewhere(hdtf):
    stems = sorted({v.identity for v in hdtf} - {"RD_Radio"})
    radio = sorted(v.name for v in hdtf if v.identity == "RD_Radio")
    clips = []
    for v in hdtf:
        person = stems.index(v.identity) if v.identity != "RD_Radio" else 1000 + radio.index(v.name)
        if v.name == "RD_Radio11.mp4":
            person = stems.index("WDA_KatieHill")
        if v.identity == "WRA_TomCotton":  # planted: one senator in two lists
            person = stems.index("WDA_JoeManchin")
        clips += [clip(v.identity, person, v.name, k=k) for k in range(3)]
    result = resolve(clips)
    assert all(len(found) == 1 for found in sides(result).values())
    assert result.splits["RD_Radio11.mp4#0"] == result.splits["WDA_KatieHill.mp4#0"]
    assert (
        result.labels["RD_Radio11.mp4#0"] == result.labels["WDA_KatieHill.mp4#2"] == "WDA_KatieHill"
    )
    assert result.labels["RD_Radio12.mp4#1"] == "RD_Radio~RD_Radio12.mp4#0"
    assert len(set(result.labels.values())) == 220 + 56 - 1
    assert {tuple(row["identities"]) for row in result.merged} >= {("RD_Radio", "WDA_KatieHill")}
    assert [row["identities"] for row in result.divided] == [["RD_Radio"]]
    # Nobody of the Radio can be validated on, and they would be most of val.
    assert result.splits["RD_Radio12.mp4#0"] == "train"


def test_one_person_of_two_names_is_one_label_on_one_side_and_reported():
    names = [f"P{i}" for i in range(40)]
    clips = [clip(name, i, k=k) for i, name in enumerate(names) for k in range(2)]
    apart = resolve(clips)
    a, b = next(n for n in names if apart.splits[f"{n}.mp4#0"] == "val"), "P0"
    assert apart.splits[f"{b}.mp4#0"] == "train" and not apart.merged
    twin = [clip("Q", names.index(n), video=f"Q{n}.mp4") for n in (a, b)]
    joined = resolve(clips + twin)  # Q shows both, so both must move together
    assert joined.splits[f"{a}.mp4#0"] == joined.splits[f"{b}.mp4#0"]
    assert joined.labels[f"Q{a}.mp4#0"] == a and joined.labels[f"{b}.mp4#0"] == b
    (first, second) = joined.merged
    assert {*first["identities"], *second["identities"]} == {a, b, "Q"}
    assert first["videos"][0].startswith(first["identities"][0])
    assert 0 < first["distance"] < identities.SAME
    assert joined.divided[0]["identities"] == ["Q"] and len(joined.divided[0]["videos"]) == 2


def test_the_order_of_clips_changes_nothing():
    clips = [clip(f"P{i % 9}", i % 7, video=f"{i}.mp4") for i in range(60)]
    wanted = resolve(clips)
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(len(clips))
        again = resolve([clips[i] for i in order])
        assert again.report() == wanted.report() and again.names() == wanted.names()
        assert again.labels == wanted.labels and again.splits == wanted.splits


def test_sides_hold_when_people_are_added():
    few = resolve(clip(f"P{i}", i) for i in range(60))
    many = resolve(clip(f"P{i}", i) for i in range(200))
    assert few.splits.items() <= many.splits.items()
    assert set(few.splits.values()) == {"train", "val"}
    val = sum(side == "val" for side in many.splits.values())
    assert 0.05 < val / 200 < 0.16


@pytest.mark.parametrize("n", [2, 3, 5])
def test_few_people_leave_no_side_empty(n):
    for start in range(30):
        given = {f"N{i}": None for i in range(start, start + n)}
        assert set(identities.split(given).values()) == {"train", "val"}
    assert identities.split({"only": None}) == {"only": "train"}
    for_val = [
        f"N{i}"
        for i in range(99)
        if identities.split({f"N{i}": None, "t": "train", "v": "val"})[f"N{i}"] == "val"
    ]
    assert set(identities.split(dict.fromkeys(for_val)).values()) == {"train", "val"}


def test_given_sides_hold_and_carry_over_to_all_that_hangs_together():
    given = {f"N{i}": ("val", "train", None)[i % 3] for i in range(60)}
    found = identities.split(given)
    assert all(found[group] == side for group, side in given.items() if side)
    for side in ("train", "val"):
        result = resolve([clip("a", 1, split=side), clip("b", 1), clip("c", 2), clip("d", 3)])
        assert result.splits["a.mp4#0"] == result.splits["b.mp4#0"] == side


def conflict(clips):
    with pytest.raises(IdentityError) as error:
        resolve(clips, told=True)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_one_name_or_one_face_on_both_sides_is_one_clear_line():
    others = [clip("x", 8), clip("y", 9)]
    line = conflict(
        [clip("a", video="a0.mp4", split="train"), clip("a", video="a1.mp4", split="val"), *others]
    )
    assert "a0.mp4 is in train and a1.mp4 in val" in line and "put all" in line
    line = conflict([clip("a", 1, split="train"), clip("b", 1, split="val"), *others])
    assert "a.mp4 (a, train) and b.mp4 (b, val) show one face (distance 0." in line
    assert "same_face" in line
    through = [clip("c", 1, video="c0.mp4"), clip("c", 2, video="c1.mp4")]  # c shows both
    line = conflict([clip("a", 1, split="train"), clip("b", 2, split="val"), *through])
    assert "a.mp4 (a, train) and b.mp4 (b, val) hang together by faces and names of a, b, c" in line
    # The way out that the line names: names alone.
    resolve([clip("a", 1, split="train"), clip("b", 1, split="val")], same=0)


def test_names_that_were_told_are_never_divided_but_the_report_tells():
    clips = [clip("ann", k // 3, video=f"{k}.mp4") for k in range(6)] + [clip("bob", 5)]
    told, found = resolve(clips, told=True), resolve(clips)
    assert set(told.labels.values()) == {"ann", "bob"}
    assert set(found.labels.values()) == {"ann~0.mp4#0", "ann~3.mp4#0", "bob"}
    assert told.divided == found.divided and told.divided[0]["identities"] == ["ann"]
    assert told.groups == found.groups


def test_a_guest_gets_a_label_and_a_clip_without_a_face_counts_as_the_host():
    clips = [clip("host", 1, k=k) for k in range(4)] + [clip("host", 2, k=4), clip("host", k=5)]
    result = resolve([*clips, clip("other", 3)])
    labels = [result.labels[f"host.mp4#{k}"] for k in range(6)]
    assert labels == ["host"] * 4 + ["host~host.mp4#4", "host"]
    assert len({result.splits[f"host.mp4#{k}"] for k in range(6)}) == 1
    alone = resolve([clip("host"), clip("other")])  # no embeddings at all
    assert alone.labels == {"host.mp4#0": "host", "other.mp4#0": "other"}


def test_one_bad_clip_between_two_people_does_not_merge_them():
    between = dataclasses.replace(
        clip("a", k=9), embedding=_unit(face(1) + face(2))
    )  # nearer to each than they are to each other
    clips = [clip(n, p, k=k) for n, p in (("a", 1), ("b", 2)) for k in range(4)]
    assert np.linalg.norm(face(1) - between.embedding) < 0.8
    same = 0.8  # so that single linkage would merge all
    result = resolve([*clips, between], same=same)
    assert result.groups["a.mp4#0"] != result.groups["b.mp4#0"]


def test_people_in_a_chain_of_likenesses_are_not_one():
    middles = [_unit((1 - t) * face(1) + t * face(2)) for t in np.linspace(0, 1, 8)]
    steps = np.linalg.norm(np.diff(middles, axis=0), axis=1)
    assert steps.max() < identities.SAME
    clips = [FaceClip(f"{i}", f"{i}", f"{i}", None, middle) for i, middle in enumerate(middles)]
    groups = resolve(clips).groups
    assert groups["0"] != groups["7"] and groups["0"] == groups["1"]


def test_a_group_is_called_after_its_first_name_also_for_clips_without_a_face():
    result = resolve([clip("b", 1), clip("b", k=1), clip("a", 1), clip("c", 2)])
    assert set(result.groups.values()) == {"a", "c"}
    assert result.labels["b.mp4#1"] == result.labels["b.mp4#0"] == "a"


def test_rows_tell_the_most_doubtful_distance_and_the_videos_most_alike():
    def at(name, angle, video=None):
        where = _unit(np.cos(angle) * face(1) + np.sin(angle) * across)
        return dataclasses.replace(clip(name, video=video), embedding=where)

    across = _unit(face(2) - (face(2) @ face(1)) * face(1))
    # Angles are distances as good as: three names of one person, then three people of one name.
    (row,) = resolve([at("a", 0), at("b", 0.1), at("c", 0.3)]).merged
    assert row["identities"] == ["a", "b", "c"] and 0.29 < row["distance"] <= 0.3
    (row,) = resolve([at("a", k, f"{k}.mp4") for k in (0.0, 0.5, 1.2)]).divided
    assert row["videos"] == ["0.0.mp4", "0.5.mp4", "1.2.mp4"] and 0.49 < row["distance"] <= 0.5
    (row,) = resolve([at("a", 0), at("a", 0.1, "a2.mp4"), at("b", 0.42, "b1"), at("b", 0.38)]).close
    assert row["videos"] == ["a2.mp4", "b.mp4"]


def test_people_who_may_be_one_are_shown_with_their_sides():
    near = _unit(face(1) + 0.37 * _unit(face(99)))
    clips = [clip("a", 1, spread=0), dataclasses.replace(clip("b"), embedding=near), clip("c", 3)]
    for i, given in ((0, "train"), (1, "val")):
        clips[i] = dataclasses.replace(clips[i], split=given)
    result = resolve(clips)
    (row,) = result.close
    assert row["identities"] == ["a", "b"] and row["videos"] == ["a.mp4", "b.mp4"]
    assert identities.SAME < row["distance"] < identities.CLOSE
    assert row["splits"] == ["train", "val"]


def test_rows_of_the_build_become_clips_and_the_report_is_json():
    rows = [
        {
            "video": "v.mp4",
            "identity": "v",
            "split": None,
            "refused": [],
            "clips": [
                {"name": "v.mp4#0", "embedding": [1.0] * 128},
                {"name": "w", "embedding": None},
            ],
        },
        {"video": "gone.mp4", "identity": "g", "split": None, "refused": [], "clips": []},
    ]
    clips = identities.clips_of(rows)
    assert [c.name for c in clips] == ["v.mp4#0", "w"] and clips[1].embedding is None
    report = json.loads(json.dumps(resolve([*clips, clip("z", 4)]).report()))
    assert report["groups"][0]["group"] == "v" and report["groups"][0]["clips"] == 2
    assert resolve([]).labels == {} and resolve([]).names() == []


def test_numbers_of_labels_start_with_train():
    result = resolve(clip(f"P{i}", i) for i in range(50))
    side = {result.labels[name]: split for name, split in result.splits.items()}
    order = [side[name] for name in result.names()]
    assert order == sorted(order) and len(order) == 50


def test_six_thousand_clips_of_300_people_under_600_names():
    rng = np.random.default_rng(0)
    middles = rng.normal(size=(300, 128)) / np.sqrt(128)
    clips = [
        FaceClip(f"{i}", f"{i % 1500}", f"{i % 600}", None, _unit(middles[i % 300] + 0.015 * noise))
        for i, noise in enumerate(rng.normal(size=(6000, 128)))
    ]
    result = resolve(clips)
    assert len(set(result.groups.values())) == 300 and len(result.merged) == 300
    assert all(result.labels[f"{i}"] == result.labels[f"{i + 300}"] for i in range(300))


# --- with dlib, on real faces


@pytest.fixture(scope="module")
def real(shared_data):
    """(clips with embeddings, {clip: who it is}): two of each of four people."""
    try:
        find = landmarker.Landmarker()
    except ImportError as error:
        pytest.skip(str(error))
    rows = json.loads((shared_data / "manifest.json").read_text())
    who = {row["file"]: row["identity"] for row in rows if row["kind"] == "talking"}
    kept = {}
    for name in who:  # the first and the last of each in the manifest; others come but once
        kept.setdefault(who[name], [name, name])[1] = name
    people = "grid_s1 grid_s26 WRA_RoyBlunt WDA_KatieHill".split()
    clips = []
    for name in [name for person in people for name in kept[person]]:
        frames = list(itertools.islice(read_video.read_frames(shared_data / name), 0, 50, 30))
        points = [find(frame)[0] for frame in frames]
        clips.append(FaceClip(name, name, name, None, identities.embedding(frames, points)))
    return clips, who


def test_real_people_are_found_by_their_faces_alone(real):
    clips, who = real
    assert all(c.embedding.shape == (128,) and c.embedding.dtype == np.float32 for c in clips)
    labels = resolve(clips).labels
    pairs = {(labels[c.name], who[c.name]) for c in clips}
    assert len(pairs) == len(set(labels.values())) == 4  # swapped faces are whom they show


def test_a_real_face_on_both_sides_of_the_split_is_found(real):
    clips, who = real
    two = zip(clips[2:4], ("train", "val"), strict=True)
    same = [dataclasses.replace(clip, split=side) for clip, side in two]
    assert who[same[0].name] == who[same[1].name] == "grid_s26"
    with pytest.raises(IdentityError, match="show one face"):
        resolve([*same, *clips[:2]])

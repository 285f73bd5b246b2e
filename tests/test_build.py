"""Videos become shards: whole, in order, with the reason for every video that was left out."""

import dataclasses
import json
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest

from data_pipelines import build, faces, landmarks, records, sources, synthetic, triples, video

FRAMES, SIZE = 20, 64


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """The synthetic set of 3 identities, 1 clip each, the last identity in val."""
    config = build.Config(
        out=str(tmp_path_factory.mktemp("built")),
        source="synthetic",
        size=SIZE,
        triples=6,
        identities=3,
        val_identities=1,
        clips=1,
        frames=FRAMES,
        frame_size=96,
    )
    return config, build.build(config)


def read(out, kind, split):
    source = records.source(out, kind, split)
    return [source[i] for i in range(len(source))]


def assert_same_records(a, b, kind, split):
    for x, y in zip(read(a, kind, split), read(b, kind, split), strict=True):
        for name in x:
            np.testing.assert_array_equal(x[name], y[name])


def test_frames_clips_and_triples_fit_together(built):
    config, summary = built
    assert summary["frames"] == {"train": 2 * FRAMES, "val": FRAMES}
    assert summary["triples"] == {"train": 6}  # val has one identity
    names = records.metadata(config.out, "clips")["identities"]
    assert names == ["0000", "0001", "0002"]
    for split, count in (("train", 2), ("val", 1)):
        clips, frames = read(config.out, "clips", split), read(config.out, "frames", split)
        assert len(clips) == count
        for clip in clips:
            own = frames[int(clip["first"]) : int(clip["first"]) + int(clip["frames"])]
            assert {f["clip"] for f in own} == {clip["name"]}
            assert [int(f["frame"]) for f in own] == list(range(FRAMES))
            assert names[clip["identity"]] == clip["identity_name"]
            assert len(clip["audio"]) == FRAMES * faces.SAMPLES
            for frame in own:
                assert records.decode_image(frame["image"]).shape == (SIZE, SIZE, 3)
                centre = frame["landmarks"].mean(0)
                assert (abs(centre - SIZE / 2) < SIZE / 5).all()


def test_crops_and_sound_are_those_of_the_video(built):
    config, _ = built
    (clip,) = read(config.out, "clips", "val")
    truth = synthetic.clip_of(json.loads(clip["meta"])["synthetic"])
    sound, told = clip["audio"] / 32767, truth.audio
    lags = range(-400, 401, 40)
    products = [np.dot(np.roll(sound, -lag)[800:-800], told[800:-800]) for lag in lags]
    assert abs(lags[int(np.argmax(products))]) <= 40  # AAC alone would delay it by 1024
    frame = records.source(config.out, "frames", "val")[7]
    _, points = synthetic.render_frame(truth, 7, 96)
    again = faces.mapped(points[None], frame["matrix"][None])[0]
    np.testing.assert_allclose(again, frame["landmarks"], atol=0.01)


def test_triples_have_the_identity_of_one_and_the_picture_of_another(built):
    config, _ = built
    frames = records.source(config.out, "frames", "train")
    for triple in read(config.out, "triples", "train"):
        source, target = frames[triple["source"]], frames[triple["target"]]
        assert source["identity"] == triple["source_identity"]
        assert target["identity"] == triple["target_identity"]
        assert source["identity"] != target["identity"]
        result, image = (records.decode_image(d) for d in (triple["result"], target["image"]))
        assert result.shape == image.shape and (result != image).any()
        background = np.abs(result[:6, :6].astype(int) - image[:6, :6]).mean()
        assert background < 12  # the target's, but for the video's compression


def test_a_second_run_stops_at_once_and_another_build_is_refused(built, capsys):
    config, summary = built
    assert build.build(dataclasses.replace(config, workers=4)) == summary
    assert "is already built" in capsys.readouterr().out
    with pytest.raises(build.BuildError, match="size was 64 and is 32"):
        build.build(dataclasses.replace(config, size=32))


def test_workers_do_not_change_the_shards(built, tmp_path):
    config, summary = built
    command = [sys.executable, "-m", "data_pipelines.build", f"--out={tmp_path}", "--workers=2"]
    for name in ("source", "size", "triples", "identities", "val_identities"):
        command.append(f"--{name}={getattr(config, name)}")
    command += ["--clips=1", f"--frames={FRAMES}", "--frame_size=96"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert f"clips kept, 0 videos left out, {2 * FRAMES} frames in train" in done.stdout
    for kind, split in (("frames", "train"), ("clips", "val"), ("triples", "train")):
        assert_same_records(config.out, tmp_path, kind, split)
    assert (tmp_path / "contact_sheet.jpg").stat().st_size > 1000
    assert not list(tmp_path.glob(".*"))


def talk(path, frames=FRAMES, found=None, sound=True):
    """A video of noise whose landmarks lie beside it; found: frames in which a face is known."""
    clip = synthetic.sample_clip(0, 0, 0, frames)
    rng = np.random.default_rng(0)
    pictures = (rng.integers(0, 255, (96, 96, 3), dtype=np.uint8) for _ in range(frames))
    path.parent.mkdir(parents=True, exist_ok=True)
    video.write_video(path, pictures, Fraction(25), (clip.audio, 16000) if sound else None)
    _, points = synthetic.render_frame(clip, 0, 96)
    points = np.repeat(points[None], frames, 0)
    points[[i for i in range(frames) if found is not None and i not in found]] = np.nan
    landmarks.save_landmarks(path.with_suffix(".landmarks.npz"), points)


def test_each_unusable_video_is_one_clear_line(tmp_path, capsys):
    videos = tmp_path / "videos"
    talk(videos / "ann" / "good.mp4")
    talk(videos / "ann" / "faceless.mp4", found=[])
    talk(videos / "ann" / "hidden.mp4", found=range(5))
    talk(videos / "ann" / "mute.mp4", sound=False)
    talk(videos / "ann" / "brief.mp4", frames=9)
    talk(videos / "ann" / "truncated.mp4")
    whole = (videos / "ann" / "truncated.mp4").read_bytes()
    (videos / "ann" / "truncated.mp4").write_bytes(whole[: len(whole) // 2])
    (videos / "ann" / "empty.mp4").write_bytes(b"")
    (videos / "ann" / "text.mp4").write_text("not a video at all, but named like one")
    (videos / "ann" / "notes.txt").write_text("passed over")
    out = tmp_path / "out"
    summary = build.build(build.Config(out=str(out), source=str(videos), size=32, triples=0))
    assert (summary["clips"], summary["refused"]) == (1, 7)
    rows = json.loads((out / "refused.json").read_text())
    reasons = {row["file"]: row["reason"] for row in rows}
    for name, part in {
        "faceless": "no face was found in its 20 frames",
        "hidden": "a face was found in 5 of 20 frames",
        "mute": "no sound",
        "brief": "at least 15 are needed",
        "truncated": "",
        "empty": "",
        "text": "",
    }.items():
        reason = reasons[f"ann/{name}.mp4"]
        assert f"{name}.mp4" in reason and part in reason
        assert "\n" not in reason and "unexpected" not in reason
    printed = capsys.readouterr().out
    assert printed.count("left out: ") == 7 and "Traceback" not in printed


def test_nothing_usable_leaves_no_set_behind(tmp_path):
    talk(tmp_path / "videos" / "faceless.mp4", found=[])
    config = build.Config(out=str(tmp_path / "out"), source=str(tmp_path / "videos"), triples=0)
    with pytest.raises(build.BuildError, match=r"none of the 1 videos .* see .*refused\.json"):
        build.build(config)
    assert not (tmp_path / "out" / "frames").exists()


def test_long_gaps_are_left_out_short_ones_bridged_and_long_videos_cut(tmp_path):
    found = [i for i in range(90) if not (20 <= i < 40 or 60 <= i < 63)]
    talk(tmp_path / "videos" / "gaps.mp4", frames=90, found=found)
    out = tmp_path / "out"
    config = build.Config(out=str(out), source=str(tmp_path / "videos"), max_seconds=1, triples=0)
    summary = build.build(config)
    assert summary["frames"]["train"] == 50  # 40 ... 89
    clips = read(out, "clips", "train")
    assert [(c["name"], int(c["first"]), int(c["frames"])) for c in clips] == [
        ("gaps.mp4#0", 0, 25),
        ("gaps.mp4#1", 25, 25),
    ]
    assert [int(f["frame"]) for f in read(out, "frames", "train")] == list(range(40, 90))
    sound, _ = faces.audio.read_audio(tmp_path / "videos" / "gaps.mp4")
    joined = np.concatenate([c["audio"] for c in clips]) / 32767
    np.testing.assert_allclose(joined, sound[40 * 640 : 90 * 640], atol=1e-4)


def test_identities_and_splits_of_a_folder(tmp_path):
    names = ["WDA_DebbieStabenow0.mp4", "WDA_DebbieStabenow1.mp4", "s1/a.MPG", "s1/b.mov"]
    for name in [*names, "12.mkv", "readme.txt", "out/x.mp4"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    videos = sources.from_folder(tmp_path, leave_out=tmp_path / "out")
    identity = {v.name: v.identity for v in videos}
    assert identity == dict.fromkeys(names[:2], "WDA_DebbieStabenow") | {
        "s1/a.MPG": "s1",
        "s1/b.mov": "s1",
        "12.mkv": "12",
    }
    sides = {v.identity: v.split for v in videos}
    assert set(sides.values()) == {"train", "val"}
    train = [v.identity for v in videos if v.split == "train"]
    assert set(sources.identities(videos)[: len(set(train))]) == set(train)


def test_a_split_of_many_identities_is_nine_to_one(tmp_path):
    rows = [{"file": f"{i}.mp4", "identity": f"person {i}"} for i in range(400)]
    (tmp_path / "list.json").write_text(json.dumps(rows))
    before = sources.from_manifest(tmp_path / "list.json")
    assert 20 <= sum(v.split == "val" for v in before) <= 60
    (tmp_path / "list.json").write_text(json.dumps(rows[:300]))
    assert sources.from_manifest(tmp_path / "list.json") == before[:300]


@pytest.mark.parametrize(
    "rows, line",
    [
        ({"file": "a"}, "must be a JSON list"),
        ([{"file": "a.mp4"}], "row 0 must have a file and an identity"),
        ([{"file": "a.mp4", "identity": "a", "split": "test"}], "not train or val"),
        ([{"file": "a.mp4", "identity": "a"}] * 2, "named 2 times"),
        ([{"file": "a.mp4", "identity": "a", "kind": "portrait"}], "holds no video"),
        (
            [
                {"file": "a.mp4", "identity": "a", "split": "train"},
                {"file": "b.mp4", "identity": "a", "split": "val"},
            ],
            "identity a is in train and in val",
        ),
    ],
)
def test_a_wrong_manifest_is_one_clear_line(tmp_path, rows, line):
    (tmp_path / "list.json").write_text(json.dumps(rows))
    with pytest.raises(sources.SourceError, match=line):
        sources.from_manifest(tmp_path / "list.json")


@pytest.mark.parametrize(
    "change, line",
    [
        ({}, "give --source=synthetic, or"),
        ({"source": "nowhere"}, "no such folder"),
        ({"manifest": "nowhere.json"}, "not a readable JSON"),
        ({"source": "synthetic", "proxy": "roop"}, "there are exact, classical"),
    ],
)
def test_wrong_arguments_are_one_clear_line(tmp_path, change, line):
    with pytest.raises(ValueError, match=line):
        build.build(build.Config(out=str(tmp_path / "out"), **change))
    assert not (tmp_path / "out").exists()


def test_pairs_are_of_two_identities_and_reach_every_frame():
    runs = [triples.Run(0, 0, 2, None), triples.Run(1, 2, 3, None), triples.Run(0, 5, 1, None)]
    identity = [0, 0, 1, 1, 1, 0]
    pairs = triples.plan(runs, 200, (0, 0))
    assert pairs == triples.plan(runs, 200, (0, 0))
    assert {p.source for p in pairs} == {p.target for p in pairs} == set(range(6))
    for pair in pairs:
        assert identity[pair.source] == pair.source_identity != pair.target_identity
        assert identity[pair.target] == pair.target_identity
    assert triples.plan(runs[:1], 200, (0, 0)) == []


def test_a_real_clip(shared_data, tmp_path):
    pytest.importorskip("dlib", reason="the extra `media` is not installed")
    rows = json.loads((shared_data / "manifest.json").read_text())
    row = next(r for r in rows if r["file"].endswith("grid/s1/bbal6n.mpg"))
    (tmp_path / "list.json").write_text(json.dumps([row]))
    paths = {"source": str(shared_data), "manifest": str(tmp_path / "list.json")}
    out = tmp_path / "out"
    summary = build.build(build.Config(out=str(out), size=128, **paths))
    assert summary["frames"] == {"train": 75, "val": 0} and summary["triples"] == {}
    points = np.stack([f["landmarks"] for f in read(out, "frames", "train")])
    assert (abs(points.mean((0, 1)) - 64) < 20).all()
    assert np.abs(np.diff(points.mean(1), axis=0)).max() < 3  # pixels: the face stays in place

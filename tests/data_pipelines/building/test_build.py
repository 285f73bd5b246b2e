"""Videos become shards: whole, in order, with the reason for every video that was left out."""

import dataclasses
import fcntl
import json
import pathlib
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest

from data_pipelines import build, rates
from data_pipelines.building import clip_files, cutting
from data_pipelines.errors import REFUSED
from data_pipelines.faces import landmarks, quality
from data_pipelines.media import audio, write_video
from data_pipelines.page import page
from data_pipelines.proxies import pairing
from data_pipelines.records import kinds, reader, shards
from data_pipelines.synthetic import sampling

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
        val_identities=1.0,
        clips=1,
        frames=FRAMES,
        frame_size=96,
    )
    return config, build.build(config)


def read(out, kind, split):
    source = reader.source(out, kind, split)
    return [source[i] for i in range(len(source))]


def test_frames_clips_and_triples_fit_together(built):
    config, summary = built
    assert summary["frames"] == {"train": 2 * FRAMES, "val": FRAMES}
    assert summary["triples"] == {"train": 6}  # val has one identity
    names = reader.metadata(config.out, "clips")["identities"]
    assert names == ["0000", "0001", "0002"]
    for split, count in (("train", 2), ("val", 1)):
        clips, frames = read(config.out, "clips", split), read(config.out, "frames", split)
        assert len(clips) == count
        for clip in clips:
            own = frames[int(clip["first"]) : int(clip["first"]) + int(clip["frames"])]
            assert {f["clip"] for f in own} == {clip["name"]}
            assert [int(f["frame"]) for f in own] == list(range(FRAMES))
            assert names[clip["identity"]] == clip["identity_name"]
            assert len(clip["audio"]) == FRAMES * rates.SAMPLES
            for frame in own:
                assert kinds.decode_image(frame["image"]).shape == (SIZE, SIZE, 3)
                centre = frame["landmarks"].mean(0)
                assert (abs(centre - SIZE / 2) < SIZE / 5).all()


def test_crops_and_sound_are_those_of_the_video(built):
    config, _ = built
    (clip,) = read(config.out, "clips", "val")
    truth = sampling.clip_of(json.loads(clip["meta"])["synthetic"])
    sound, told = clip["audio"] / 32767, truth.audio
    lags = range(-400, 401, 40)
    products = [np.dot(np.roll(sound, -lag)[800:-800], told[800:-800]) for lag in lags]
    assert abs(lags[int(np.argmax(products))]) <= 40  # AAC alone would delay it by 1024
    frame = reader.source(config.out, "frames", "val")[7]
    _, points = sampling.render_frame(truth, 7, 96)
    again = clip_files.mapped(points[None], frame["matrix"][None])[0]
    np.testing.assert_allclose(again, frame["landmarks"], atol=0.01)


def test_triples_have_the_identity_of_one_and_the_picture_of_another(built):
    config, _ = built
    frames = reader.source(config.out, "frames", "train")
    for triple in read(config.out, "triples", "train"):
        source, target = frames[triple["source"]], frames[triple["target"]]
        assert source["identity"] == triple["source_identity"]
        assert target["identity"] == triple["target_identity"]
        assert source["identity"] != target["identity"]
        result, image = (kinds.decode_image(d) for d in (triple["result"], target["image"]))
        assert result.shape == image.shape and (result != image).any()
        background = np.abs(result[:6, :6].astype(int) - image[:6, :6]).mean()
        assert background < 12  # the target's, but for the video's compression


def test_a_second_run_stops_at_once_and_another_build_is_refused(built, capsys):
    config, summary = built
    assert build.build(dataclasses.replace(config, workers=4)) == summary
    assert "is already built" in capsys.readouterr().out
    with pytest.raises(build.BuildError, match="size was 64 and is 32"):
        build.build(dataclasses.replace(config, size=32))


def files(out):
    """Bytes of everything that a build leaves behind, by path."""
    paths = [p for p in pathlib.Path(out).rglob("*") if p.is_file()]
    return {str(p.relative_to(out)): p.read_bytes() for p in paths}


def assert_same_build(a, b):
    one, other = files(a), files(b)
    assert one.keys() == other.keys()
    for name in one:
        assert one[name] == other[name], name


def test_workers_do_not_change_a_byte(built, tmp_path):
    config, _ = built
    command = [sys.executable, "-m", "data_pipelines.build", f"--out={tmp_path}", "--workers=2"]
    for name in ("source", "size", "triples", "identities", "val_identities"):
        command.append(f"--{name}={getattr(config, name)}")
    command += ["--clips=1", f"--frames={FRAMES}", "--frame_size=96"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert f"3 videos: 3 clips kept, 0 left out, {2 * FRAMES} frames in train" in done.stdout
    assert_same_build(config.out, tmp_path)
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    "module, name, calls",
    [
        (cutting, "clips", 1),
        (shards.Shards, "write", 1),
        (shards.Shards, "write", 3),
        (shards.Shards, "publish", 1),
        (pairing, "swap", 0),
        (page, "write", 0),
    ],
)
def test_a_killed_build_goes_on_and_ends_with_the_same_bytes(
    built, tmp_path, monkeypatch, module, name, calls
):
    config = dataclasses.replace(built[0], out=str(tmp_path))
    real, seen = getattr(module, name), []

    def killed(*args, **kwargs):
        seen.append(args)
        if len(seen) > calls:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(module, name, killed)
        build.build(config)
    cut = []
    with monkeypatch.context() as patch:
        patch.setattr(
            cutting, "clips", lambda job, real=cutting.clips: cut.append(job) or real(job)
        )
        build.build(config)
    assert len(cut) == (2 if module is cutting else 0)  # what was cut is not cut again
    assert_same_build(built[0].out, tmp_path)


def test_two_builds_do_not_share_a_folder(built, tmp_path):
    config = dataclasses.replace(built[0], out=str(tmp_path))
    (tmp_path / build.WORK).mkdir()
    with open(tmp_path / build.WORK / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(build.BuildError, match="another build is at work"):
            build.build(config)


def talk(path, frames=FRAMES, found=None, sound=True):
    """A video of noise whose landmarks lie beside it; found: frames in which a face is known."""
    clip = sampling.sample_clip(0, 0, 0, frames)
    rng = np.random.default_rng(0)
    pictures = (rng.integers(0, 255, (96, 96, 3), dtype=np.uint8) for _ in range(frames))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video.write_video(path, pictures, Fraction(25), (clip.audio, 16000) if sound else None)
    _, points = sampling.render_frame(clip, 0, 96)
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
    summary = build.build(of_noise(out, source=str(videos), size=32, silent="refuse"))
    assert (summary["videos"], summary["clips"], summary["refused"]) == (8, 1, 7)
    rows = {row["video"]: row for row in json.loads((out / "report.json").read_text())}
    for name, reason, part in (
        ("faceless", quality.NO_FACE, "no face was found in its 20 frames"),
        ("hidden", quality.TOO_SHORT, "5 frames from 0 on; 15 are needed"),
        ("mute", quality.NO_SOUND, "mute.mp4: has no sound"),
        ("brief", quality.TOO_SHORT, "9 frames from 0 on"),
        ("truncated", quality.UNREADABLE, "truncated.mp4: "),
        ("empty", quality.UNREADABLE, "is empty (0 bytes)"),
        ("text", quality.UNREADABLE, "is not a video"),
    ):
        row = rows[f"ann/{name}.mp4"]
        (refused,) = row["refused"]
        assert refused["reason"] == reason and part in refused["detail"] and not row["clips"]
        assert "\n" not in refused["detail"] and "unexpected" not in refused["detail"]
    printed = capsys.readouterr().out
    assert "left out: 3 unreadable, 2 too_short, " in printed and "Traceback" not in printed
    assert "mute.mp4" in (out / "index.html").read_text()


def of_noise(out, **options):
    """A build of `talk` videos, whose noise no gate would let pass."""
    open_gates = {f.name: 0.0 for f in dataclasses.fields(quality.Gates)} | {"loudness": -200.0}
    open_gates |= {name: 1e9 for name in ("yaw", "company", "silence")}
    gates = quality.Gates(**open_gates)
    return build.Config(out=str(out), triples=0, gates=gates, same_face=0.0, **options)


def test_nothing_usable_leaves_no_set_behind(tmp_path):
    talk(tmp_path / "videos" / "faceless.mp4", found=[])
    config = of_noise(tmp_path / "out", source=str(tmp_path / "videos"))
    with pytest.raises(build.BuildError, match=r"none of the 1 videos .* see .*report\.json"):
        build.build(config)
    assert not (tmp_path / "out" / "frames").exists()


def test_long_gaps_are_left_out_short_ones_bridged_and_long_videos_cut(tmp_path):
    found = [i for i in range(90) if not (20 <= i < 40 or 60 <= i < 63)]
    talk(tmp_path / "videos" / "gaps.mp4", frames=90, found=found)
    out = tmp_path / "out"
    config = of_noise(out, source=str(tmp_path / "videos"), max_seconds=1.0)
    summary = build.build(config)
    assert summary["frames"]["train"] == 70  # 0 ... 19 and 40 ... 89
    clips = read(out, "clips", "train")
    assert [(c["name"], int(c["first"]), int(c["frames"])) for c in clips] == [
        ("gaps.mp4#0", 0, 20),
        ("gaps.mp4#1", 20, 25),
        ("gaps.mp4#2", 45, 25),
    ]
    shown = [*range(20), *range(40, 90)]
    assert [int(f["frame"]) for f in read(out, "frames", "train")] == shown
    sound, _ = audio.read_audio(tmp_path / "videos" / "gaps.mp4")
    joined = np.concatenate([c["audio"] for c in clips]) / 32767
    np.testing.assert_allclose(joined[20 * 640 :], sound[40 * 640 : 90 * 640], atol=1e-4)


def test_a_listed_video_that_is_not_there_is_a_row_of_the_report(tmp_path):
    for name, text in {
        "annotion_time": "Ann0.mp4 00:00-00:02\nBob.mp4 00:00-00:10\n",
        "video_url": "Ann0 https://example.org/ann\nBob https://example.org/bob\n",
    }.items():
        (tmp_path / f"WDA_{name}.txt").write_text(text)
    talk(tmp_path / "videos" / "WDA_Ann0_000.mp4", frames=60)  # as downloaders cut them
    out, paths = tmp_path / "out", {"lists": str(tmp_path), "source": str(tmp_path / "videos")}
    summary = build.build(of_noise(out, **paths))
    assert (summary["videos"], sum(summary["frames"].values())) == (2, 60)
    rows = json.loads((out / "report.json").read_text())
    (bob,) = [row for row in rows if row["video"] == "WDA_Bob"]
    (missing,) = [r for r in bob["refused"] if r["reason"] == "missing"]
    assert "https://example.org/bob" in missing["detail"]


@pytest.mark.parametrize(
    "change, line",
    [
        ({}, "give --source=synthetic, or"),
        ({"source": "nowhere"}, "no such folder"),
        ({"manifest": "nowhere.json"}, "not a readable JSON"),
        ({"source": "synthetic", "proxy": "roop"}, "exact, classical"),
        ({"lists": "somewhere"}, "alone or with --lists"),
        ({"source": "synthetic", "unsure": "guess"}, "refuse and keep"),
        ({"source": "videos", "silent": "drop"}, "frames and refuse"),
        ({"source": "videos", "stills": "person"}, "folder and image"),
    ],
)
def test_wrong_arguments_are_one_clear_line(tmp_path, change, line):
    with pytest.raises(ValueError, match=line):
        build.build(build.Config(out=str(tmp_path / "out"), **change))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "arguments", [["--size=64"], ["--out=x", "--sise=64"], ["--out=x", "--seed=a"]]
)
def test_a_wrong_command_line_is_one_line(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        build._parse(["build", *arguments])
    told = capsys.readouterr()
    assert ended.value.code == REFUSED and not told.out
    assert told.err.startswith("[build] ") and told.err.count("\n") == 1


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

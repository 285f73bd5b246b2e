"""Still pictures and silent videos give frames, and never clips."""

import dataclasses
import json
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from data_pipelines import build
from data_pipelines.building import cutting
from data_pipelines.faces import landmarks, quality
from data_pipelines.loading import loader
from data_pipelines.media import write_video
from data_pipelines.records import kinds, reader
from data_pipelines.sources import listing
from data_pipelines.synthetic import sampling

SIDE = 96
OPEN = quality.Gates(face=0, yaw=1e9, company=1e9, sharpness=0, mouth=0, loudness=-200, heard=0)


def drawn(identity, frame=0):
    """(picture, landmarks) of a synthetic head."""
    return sampling.render_frame(sampling.sample_clip(0, identity, 0, 40), frame, SIDE)


def still(path, identity, faces=1):
    image, points = drawn(identity)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    landmarks.save_landmarks(path.with_suffix(".landmarks.npz"), np.stack([points] * faces))


def video(path, identity, sound, frames=20):
    path.parent.mkdir(parents=True, exist_ok=True)
    pairs = [drawn(identity, i) for i in range(frames)]
    heard = (sampling.sample_clip(0, identity, 0, frames).audio, 16000) if sound else None
    write_video.write_video(path, [image for image, _ in pairs], Fraction(25), heard)
    points = np.stack([points for _, points in pairs])
    landmarks.save_landmarks(path.with_suffix(".landmarks.npz"), points)


def config(folder, **options):
    options = {
        "size": 32,
        "triples": 4,
        "same_face": 0.0,
        "gates": OPEN,
        "unsure": "keep",
    } | options
    return build.Config(out=str(folder / "out"), source=str(folder / "in"), **options)


def read(out, kind, split):
    source = reader.source(out, kind, split)
    return [source[i] for i in range(len(source))]


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """A build of two talking, two silent people and four portraits, in one folder."""
    folder = tmp_path_factory.mktemp("mixed")
    for i in range(4):
        still(folder / "in" / f"{i:05d}.png", i)
        video(folder / "in" / f"person{'abcd'[i]}" / "x.mp4", i, sound=i < 2)
    (folder / "in" / "torn.jpg").write_bytes(b"\xff\xd8 not more than this")
    return folder / "out", build.build(config(folder))


def test_clips_describe_the_front_of_frames_and_stills_follow(mixed):
    out, summary = mixed
    heard, others = set(), 0
    for split in listing.SPLITS:
        clips, frames = read(out, "clips", split), read(out, "frames", split)
        end = 0
        for clip in clips:
            assert int(clip["first"]) == end
            end += int(clip["frames"])
            assert {f["clip"] for f in frames[int(clip["first"]) : end]} == {clip["name"]}
            heard.add(clip["identity_name"])
        assert not {f["clip"] for f in frames[end:]} & {clip["name"] for clip in clips}
        others += len(frames) - end
        assert summary["frames"][split] == len(frames)
    assert heard == {"persona", "personb"} and others == 2 * 20 + 4
    names = reader.metadata(out, "frames")["identities"]
    assert names == reader.metadata(out, "clips")["identities"] and len(names) == 8


def test_the_summary_and_the_report_say_what_each_source_gave(mixed):
    out, summary = mixed
    assert (summary["videos"], summary["clips"], summary["refused"]) == (2, 2, 1)
    assert summary["sources"]["silent"] == {"files": 2, "clips": 0, "frames": 40, "refused": 0}
    assert summary["sources"]["stills"] == {"files": 5, "clips": 0, "frames": 4, "refused": 1}
    rows = {row["video"]: row for row in json.loads((out / "report.json").read_text())}
    assert rows["torn.jpg"]["refused"][0]["reason"] == quality.UNREADABLE
    assert [rows[f"person{x}/x.mp4"]["source"] for x in "ac"] == ["videos", "silent"]
    page = (out / "index.html").read_text()
    assert "frames, and no clips, of 5 still pictures" in page and "00002.png" in page


def test_a_second_run_says_the_same(mixed, capsys):
    assert build.build(config(mixed[0].parent)) == mixed[1]
    told = capsys.readouterr().out
    assert "2 videos: 2 clips kept, 0 left out, 2 silent videos: 40 frames and no clips" in told
    assert "5 stills: 4 frames and no clips, 1 left out" in told


def test_a_folder_of_stills_is_enough_for_the_view_images(tmp_path):
    for i in range(6):
        still(tmp_path / "in" / "00000" / f"{i:05d}.png", i)
    summary = build.build(config(tmp_path, stills="image"))
    out = tmp_path / "out"
    assert summary["clips"] == 0 and summary["triples"] == {}
    assert not (out / "clips").exists() and not (out / "triples").exists()
    assert len(reader.metadata(out, "frames")["identities"]) == 6
    batch = next(loader.dataset({"root": str(out)}, "train", "images", 2, seed=0))
    assert batch["image"].shape == (2, 32, 32, 3)
    fixed = next(loader.evaluation({"root": str(out)}, "val", "images", 1, seed=0))
    assert fixed["mask"].sum() == 1
    frame = read(out, "frames", "val")[0]
    image = kinds.decode_image(frame["image"])
    points = frame["landmarks"]
    assert (abs(points.mean(0) - 16) < 6).all() and image.std() > 10


@pytest.fixture
def job(tmp_path):
    def make(name, **fields):
        for folder in ("in", "clips", "cache"):
            (tmp_path / folder).mkdir(exist_ok=True)
        source = listing.Video(tmp_path / "in" / name, name, "someone", None)
        return cutting.Job(source, 32, 0, tmp_path / "clips", tmp_path / "cache", **fields)

    return make


@pytest.mark.parametrize(
    "gates, faces, reason",
    [
        ({"face": 1000.0}, 1, quality.SMALL_FACE),
        ({"yaw": 0.0}, 1, quality.PROFILE),
        ({"sharpness": 0.99}, 1, quality.BLURRED),
        ({"mouth": 1.1}, 1, quality.MOUTH_HIDDEN),
        ({"company": 0.1}, 2, quality.SEVERAL_FACES),
        ({}, 0, quality.NO_FACE),
    ],
)
def test_stills_pass_the_gates_of_videos(job, gates, faces, reason):
    task = job("a.png", gates=dataclasses.replace(OPEN, **gates))
    still(task.video.path, 0)
    image, points = drawn(0)
    kept = np.stack([points] * faces) if faces else np.full((1, 68, 2), np.nan)
    landmarks.save_landmarks(task.video.path.with_suffix(".landmarks.npz"), kept)
    row = cutting.clips(task)
    assert {refused["reason"] for refused in row["refused"]} == {reason} and not row["clips"]
    assert not list(task.folder.iterdir())


def test_silent_videos_are_refused_where_the_build_says_so(job):
    task = job("a.mp4", gates=OPEN, silent="refuse")
    video(task.video.path, 0, sound=False)
    assert [r["reason"] for r in cutting.clips(task)["refused"]] == [quality.NO_SOUND]
    (clip,) = cutting.clips(dataclasses.replace(task, silent="frames"))["clips"]
    assert clip["sound"] is False and clip["frames"] == 20


def test_a_real_portrait_is_found_and_kept(shared_data, tmp_path):
    pytest.importorskip("dlib", reason="the extra `media` is not installed")
    (photo,) = (shared_data / "portraits").glob("obama.jpg")
    source = listing.Video(photo, photo.name, "someone", None)
    row = cutting.clips(cutting.Job(source, 256, 0, tmp_path, tmp_path / "cache"))
    (clip,) = row["clips"]
    assert clip["frames"] == 1 and len(clip["embedding"]) == 128 and not row["refused"]
    again = cutting.clips(cutting.Job(source, 256, 0, tmp_path, tmp_path / "cache"))
    assert again == row and len(list((tmp_path / "cache").iterdir())) == 1

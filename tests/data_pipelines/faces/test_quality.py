"""Quality: pose, blur, hidden mouths, sound and light, and from where on a clip is refused."""

import dataclasses
import math

import cv2
import numpy as np
import pytest

from data_pipelines.faces import align, landmarker, quality
from data_pipelines.synthetic import sampling
from data_pipelines.synthetic.head import State

GATES = quality.Gates()


@pytest.fixture(scope="module")
def people():
    return [sampling.sample_identity(0, index) for index in range(4)]


def head(person, **state):
    return sampling.render(person, dataclasses.replace(State(), **state), 96)[1]


def test_pose_has_the_signs_that_it_promises(people):
    for person in people:
        straight = quality.pose(head(person))
        for axis, name in enumerate(("yaw", "pitch", "roll")):
            for angle in (-0.3, 0.3):
                turned = (quality.pose(head(person, **{name: angle})) - straight)[axis]
                assert np.sign(turned) == np.sign(angle) and abs(turned) > 5, name


def test_pose_mirrors_and_turns_with_the_picture(people):
    points = head(people[0], yaw=0.3, pitch=0.1)
    mirrored = points * [-1, 1]
    order = [*range(16, -1, -1), *range(26, 16, -1), *range(27, 31), *range(35, 30, -1)]
    order += [45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40]
    order += [54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65]
    pose = quality.pose(points)
    np.testing.assert_allclose(quality.pose(mirrored[order]), pose * [-1, 1, -1], atol=0.5)
    turn = math.radians(20)
    turn = np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]])
    np.testing.assert_allclose(quality.pose(3 * points @ turn) - pose, [0, 0, 20], atol=1e-3)


def test_pose_of_many_frames_keeps_the_empty_ones_empty(people):
    points = np.stack([head(people[0]), np.full((68, 2), np.nan)])
    pose = quality.pose(points[None])
    assert pose.shape == (1, 2, 3) and np.isfinite(pose[0, 0]).all() and np.isnan(pose[0, 1]).all()


def test_sound_is_measured_in_decibels_shares_and_seconds():
    t = np.arange(25 * 640) / 16000
    loud = (0.5 * 32767 * np.sin(440 * math.tau * t)).astype(np.int16)
    m = quality.of_sound(loud)
    assert (
        m["loudness"] == pytest.approx(-9.03, abs=0.1) and m["heard"] == 1 and m["silence"] < 0.01
    )
    assert quality.refusal(m, GATES) is None
    half = loud.copy()
    half[4000:14000] = 0
    m = quality.of_sound(half)
    assert m["silence"] == pytest.approx(10000 / 16000, abs=0.01)
    assert quality.refusal(m, GATES)[0] == quality.CUT_SOUND
    m = quality.of_sound(loud // 2000)
    assert quality.refusal(m, GATES)[0] == quality.SILENT
    click = np.random.default_rng(0).integers(-9, 9, len(loud)).astype(np.int16)
    click[:640] = 30000
    assert quality.refusal(quality.of_sound(click), GATES)[0] == quality.SILENT


@pytest.mark.parametrize(
    "name, value, reason",
    [
        ("face", 40.0, quality.SMALL_FACE),
        ("faces", 0.5, quality.SEVERAL_FACES),
        ("yaw", -50.0, quality.PROFILE),
        ("yaw", 50.0, quality.PROFILE),
        ("sharpness", 0.1, quality.BLURRED),
        ("mouth", 0.2, quality.MOUTH_HIDDEN),
    ],
)
def test_each_gate_has_its_reason_and_one_line(name, value, reason):
    good = {"face": 120.0, "faces": 0.0, "yaw": 5.0, "sharpness": 0.4, "mouth": 1.0}
    assert quality.refusal(good, GATES) is None
    code, detail = quality.refusal(good | {name: value}, GATES)
    assert code == reason and code in quality.REASONS and "\n" not in detail and "limit" in detail
    assert quality.refusal(good | {name: value}, GATES, exact=True) is None


def test_light_knows_from_where_it_comes(people):
    for name, light, axis in (("left", (-1.0, 0.0, 1.0), 1), ("top", (0.0, -1.0, 1.0), 2)):
        image, points = sampling.render(people[1], dataclasses.replace(State(), light=light), 128)
        other = dataclasses.replace(State(), light=tuple(-x for x in light[:2]) + light[2:])
        opposite, _ = sampling.render(people[1], other, 128)
        measured = [quality.of_pixels(im, points)["light"] for im in (image, opposite)]
        assert measured[0][axis] > measured[1][axis], name
        assert 0 < measured[0][0] < 1


# Photos ------------------------------------------------------------------------------------------

PORTRAITS = ("obama.jpg", "obama2.jpg", "biden.jpg", "astronaut.png")


@pytest.fixture(scope="module")
def photos(shared_data):
    """{name: (image, landmarks)} of portraits, cut around the head."""
    try:
        find = landmarker.Landmarker()
    except ImportError as error:
        pytest.skip(str(error))
    found = {}
    for name in PORTRAITS:
        image = cv2.imread(str(shared_data / "portraits" / name))[..., ::-1]
        image = np.ascontiguousarray(image)
        points = find(image)[0]
        matrix = align.similarity(points, 400)
        found[name] = align.crop(image, matrix, 400), align.transform(points, matrix)
    return found


def test_good_portraits_pass(photos):
    for name, (image, points) in photos.items():
        measures = quality.over_time([quality.of_pixels(image, points)])
        assert quality.refusal(measures, GATES) is None, name


def test_blur_is_refused(photos):
    for name, (image, points) in photos.items():
        blurred = cv2.GaussianBlur(image, (0, 0), 0.035 * np.ptp(points, axis=0).max())
        measures = quality.over_time([quality.of_pixels(blurred, points)])
        assert quality.refusal(measures, GATES)[0] == quality.BLURRED, name


def test_a_covered_mouth_is_told_from_an_open_one(photos):
    for name, (image, points) in photos.items():
        mouth, size = points[48:60].mean(0), np.ptp(points[48:60, 0])
        skin = np.median(image[tuple(points[[29, 30]].astype(int).T[::-1])], axis=0)
        for colour in (skin, (235, 235, 235), (30, 30, 30)):
            covered = image.copy()
            axes = (int(0.9 * size), int(0.7 * size))
            colour = tuple(float(c) for c in colour)
            cv2.ellipse(covered, tuple(int(v) for v in mouth), axes, 0, 0, 360, colour, -1)
            measures = quality.over_time([quality.of_pixels(covered, points)])
            assert quality.refusal({"mouth": measures["mouth"]}, GATES), (name, colour)

"""FFHQ alignment: geometry, smoothing over time, crops and the way back into the frame."""

import cv2
import numpy as np
import pytest

from data_pipelines.faces import align
from data_pipelines.synthetic import sampling
from swaptalk_jax.stages import losses


def face_at(centre, width=100.0, angle=0.0):
    """68 points with upright eyes and mouth of plausible proportions around `centre`."""
    points = np.zeros((68, 2))
    points[:17] = np.column_stack(
        [np.linspace(-0.7, 0.7, 17), 0.9 * np.cos(np.linspace(-1.4, 1.4, 17))]
    )
    points[17:27] = np.column_stack([np.linspace(-0.55, 0.55, 10), np.full(10, -0.3)])
    points[27:36] = np.column_stack([np.linspace(-0.1, 0.1, 9), np.linspace(0, 0.3, 9)])
    points[36:42] = [-0.32, -0.05] + 0.06 * np.random.default_rng(0).standard_normal((6, 2))
    points[42:48] = [0.32, -0.05] + 0.06 * np.random.default_rng(1).standard_normal((6, 2))
    turn = np.linspace(-np.pi, np.pi, 20, endpoint=False)
    points[48:] = np.column_stack([0.28 * np.cos(turn), 0.6 + 0.1 * np.sin(turn)])
    points[48], points[54] = (-0.28, 0.6), (0.28, 0.6)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return points * width @ rotation.T + centre


def texture(height, width, seed=0, blur=2.0):
    noise = np.random.default_rng(seed).uniform(0, 255, (height, width, 3)).astype(np.float32)
    noise = cv2.GaussianBlur(noise, (0, 0), blur)
    noise = 128 + (noise - noise.mean()) * 40 / noise.std()
    return np.clip(noise, 0, 255).astype(np.uint8)


def test_similarity_is_the_ffhq_quad():
    landmarks = face_at((210, 160), 80, 0.3)
    left, right = landmarks[36:42].mean(0), landmarks[42:48].mean(0)
    eyes, e2e = (left + right) / 2, right - left
    e2m = (landmarks[48] + landmarks[54]) / 2 - eyes
    x = e2e - np.flipud(e2m) * [-1, 1]
    x *= max(2 * np.hypot(*e2e), 1.8 * np.hypot(*e2m)) / np.hypot(*x)
    y = np.flipud(x) * [-1, 1]
    centre = eyes + 0.1 * e2m
    quad = np.stack([centre - x - y, centre - x + y, centre + x + y, centre + x - y])
    corners = align.transform(quad, align.similarity(landmarks, 64))
    edge = [[-0.5, -0.5], [-0.5, 63.5], [63.5, 63.5], [63.5, -0.5]]
    np.testing.assert_allclose(corners, edge, atol=1e-9)


def test_similarity_refuses_landmarks_without_extent():
    for landmarks in (np.ones((68, 2)), np.full((68, 2), np.nan)):
        with pytest.raises(ValueError, match="landmarks"):
            align.similarity(landmarks, 64)


def test_invert_round_trips_points():
    matrix = align.similarity(face_at((900, 400), 300, -0.4), 64)
    points = np.random.default_rng(0).uniform(0, 1920, (100, 2))
    back = align.transform(align.transform(points, matrix), align.invert(matrix))
    assert np.abs(back - points).max() < 1e-6
    many = align.invert(np.stack([matrix, np.full((2, 3), np.nan)]))
    np.testing.assert_array_equal(many[0], align.invert(matrix))
    assert np.isnan(many[1]).all()


def test_smoothing_halves_jitter_and_follows_linear_motion():
    frames = np.arange(100)
    noise = np.random.default_rng(0).normal(0, 1, (100, 1, 2))  # the whole face jitters
    still = np.stack([face_at((200, 200))] * 100)
    jitter = [align.transform((200, 200), m) for m in align.matrices(still + noise, 256)]
    rough = [align.transform((200, 200), m) for m in align.matrices(still + noise, 256, sigma=0)]
    assert np.std(jitter, axis=0).max() < np.std(rough, axis=0).min() / 2

    moving = np.stack([face_at((100 + 3 * i, 300 - i), 100, 0.004 * i) for i in frames])
    exact = np.stack([align.similarity(face, 256) for face in moving])
    smooth = align.matrices(moving, 256)
    for matrix, truth, face in zip(smooth, exact, moving, strict=True):  # ends included: no lag
        assert np.abs(align.transform(face, matrix) - align.transform(face, truth)).max() < 0.3


def test_smoothing_does_not_cross_a_cut():
    shots = np.stack([face_at((100, 100), 60)] * 10 + [face_at((500, 200), 120, 0.2)] * 10)
    exact = np.stack([align.similarity(face, 128) for face in shots])
    np.testing.assert_allclose(align.matrices(shots, 128), exact, atol=1e-6)


def test_short_gaps_are_bridged_and_long_ones_stay_empty():
    moving = np.stack([face_at((100 + 2 * i, 200)) for i in range(60)])
    exact = align.matrices(moving, 128)
    moving[:2] = moving[10:14] = moving[30:50] = np.nan
    bridged = align.matrices(moving, 128, max_gap=4)
    empty = np.isnan(bridged).any((1, 2))
    assert list(np.flatnonzero(empty)) == [0, 1, *range(30, 50)]
    np.testing.assert_allclose(bridged[~empty], exact[~empty], atol=1e-6)
    assert np.isnan(align.matrices(np.full((5, 68, 2), np.nan), 128)).all()
    assert align.matrices(np.empty((0, 68, 2)), 128).shape == (0, 2, 3)
    one = align.matrices(np.stack([moving[20], np.full((68, 2), np.nan)]), 128)
    np.testing.assert_allclose(one[0], align.similarity(moving[20], 128))


@pytest.mark.parametrize("factor", [3, 8, 14])
def test_shrinking_averages_over_areas(factor):
    size = 32
    image = np.random.default_rng(0).integers(0, 256, (size * factor, size * factor, 3), np.uint8)
    matrix = np.array([[1 / factor, 0, 0.5 / factor - 0.5], [0, 1 / factor, 0.5 / factor - 0.5]])
    reference = image.reshape(size, factor, size, factor, 3).mean((1, 3))
    error = align.crop(image, matrix, size).astype(float) - reference
    assert np.sqrt((error**2).mean()) < 1.5  # plain bilinear sampling errs by 30 and more here


def test_crop_does_not_shift_by_half_a_pixel():
    y, x = np.mgrid[:400, :400]
    image = np.stack([x / 2, y / 2, (x + y) / 4], -1).astype(np.float32)
    matrix = align.similarity(face_at((200, 200), 70, 0.2), 64)
    crop = align.crop(np.rint(image).astype(np.uint8), matrix, 64).astype(float)
    grid = np.stack(np.meshgrid(np.arange(64), np.arange(64)), -1)
    expected = align.transform(grid, align.invert(matrix)) / 2
    bias = (crop[..., :2] - expected)[4:-4, 4:-4].mean((0, 1))
    assert np.abs(bias).max() < 0.05  # a tenth of a frame pixel


def test_crop_beyond_the_frame_has_no_black_edge():
    image = np.clip(texture(120, 120).astype(int) + 60, 60, 255).astype(np.uint8)
    crop = align.crop(image, align.similarity(face_at((10, 110), 80), 64), 64)
    assert crop.min() > 30


@pytest.mark.parametrize("width", [60, 150])
def test_paste_of_the_crop_gives_the_frame_back(width):
    image = texture(480, 640, blur=3.0)
    matrix = align.similarity(face_at((320, 240), width, 0.15), 512)
    result = align.paste(image, align.crop(image, matrix, 512), matrix)
    assert np.abs(result.astype(int) - image).mean() < 0.3
    assert np.abs(result.astype(int) - image).max() <= 6


@pytest.mark.parametrize("centre", [(320, 240), (5, 470), (-300, -300)])
def test_paste_leaves_everything_outside_of_the_mask_alone(centre):
    image = texture(480, 640)
    matrix = align.similarity(face_at(centre, 90, 0.2), 64)
    before = image.copy()
    result = align.paste(image, np.full((64, 64, 3), 255, np.uint8), matrix)
    np.testing.assert_array_equal(image, before)
    y, x = np.mgrid[:480, :640]
    at = align.transform(np.stack([x, y], -1), matrix)
    outside = ((at < -0.5) | (at > 63.5)).any(-1)
    np.testing.assert_array_equal(result[outside], image[outside])
    if centre == (320, 240):
        inside = np.rint(align.transform((31.5, 36), align.invert(matrix))).astype(int)
        assert (result[inside[1], inside[0]] == 255).all()


def test_paste_with_an_empty_mask_changes_nothing():
    image = texture(100, 100)
    matrix = align.similarity(face_at((50, 50), 30), 64)
    result = align.paste(image, np.zeros((64, 64, 3), np.uint8), matrix, mask=np.zeros((64, 64)))
    np.testing.assert_array_equal(result, image)


@pytest.mark.parametrize("size", [16, 64, 512])
def test_soft_mask_covers_the_face_and_ends_softly(size):
    mask = align.soft_mask(size)
    assert mask.dtype == np.float32 and mask.shape == (size, size)
    assert max(mask[0].max(), mask[-1].max(), mask[:, 0].max(), mask[:, -1].max()) < 0.2
    brow, chin = int(0.38 * size), int(0.9 * size)
    assert mask[brow:chin, int(0.25 * size) : int(0.75 * size)].min() > 0.6
    steps = np.abs(np.diff(mask, axis=0)).max(), np.abs(np.diff(mask, axis=1)).max()
    assert max(steps) * size < 20  # no edge steeper than a twentieth of the crop


@pytest.mark.parametrize("size", [64, 256])
@pytest.mark.parametrize("who", [1, 5])  # without and with a beard
def test_face_mask_has_the_inner_face_and_leaves_hair_and_background(size, who):
    clip = sampling.sample_clip(seed=1, identity_index=who, clip_index=0, frames=1)
    points = sampling.render_frame(clip, 0, 256)[1]
    inner = align.transform(points, align.similarity(points, size))
    mask = align.face_mask(inner, size)
    assert mask.dtype == np.float32 and mask.shape == (size, size)
    at = np.rint(inner[17:]).astype(int)  # brows, nose, eyes and mouth, not the jaw's outline
    assert mask[at[:, 1], at[:, 0]].min() > 0.9
    brow, (left, right) = inner[17:27, 1].min(), inner[[0, 16], 0]
    away = int(0.1 * size)
    assert mask[: int(brow - 0.33 * size)].max() < 0.1  # hair
    assert max(mask[:, : int(left) - away].max(), mask[:, int(right) + away :].max()) < 0.1
    assert np.abs(np.diff(mask, axis=1)).max() * size < 40
    wide = inner[:17] + [0, 0.03 * size]  # a jaw that opens further than the target's
    wide = np.rint(wide[6:11]).astype(int)
    assert mask[wide[:, 1], wide[:, 0]].min() > 0.2


def test_steady_landmarks_have_a_place_wherever_there_is_a_matrix():
    still = face_at((200, 200), 90)
    shaking = still + np.random.default_rng(0).normal(0, 1, (60, 68, 2))
    shaking[[5, 20]] = shaking[30:50] = np.nan
    found = align.steady(shaking)
    known = np.isfinite(align.matrices(shaking, 64)).all((1, 2))
    np.testing.assert_array_equal(np.isfinite(found).all((1, 2)), known)
    assert known[[5, 20]].all() and not known[30:50].any()
    assert np.abs(found[known] - still).mean() < 0.5 * np.abs(shaking[10:20] - still).mean()


def test_mouth_box_holds_the_mouth_and_stays_in_the_crop():
    face = face_at((300, 300), 100)
    inner = align.transform(face, align.similarity(face, 64))
    y0, x0, y1, x1 = align.mouth_box(inner, 64)
    mouth = inner[48:]
    assert x0 < mouth[:, 0].min() and x1 > mouth[:, 0].max() + 1
    assert y0 < mouth[:, 1].min() and y1 > mouth[:, 1].max() + 1
    assert 0 <= y0 < y1 <= 64 and 0 <= x0 < x1 <= 64
    assert all(type(v) is int for v in (y0, x0, y1, x1))
    for shift in ((1000, 1000), (-1000, 20)):
        y0, x0, y1, x1 = align.mouth_box(inner + shift, 64)
        assert 0 <= y0 < y1 <= 64 and 0 <= x0 < x1 <= 64


def test_mouth_area_is_the_share_of_each_cell_and_holds_the_mouths_middle():
    fine, coarse = align.mouth_area(64, 64), align.mouth_area(16, 16)
    np.testing.assert_allclose(fine.reshape(16, 4, 16, 4).mean((1, 3)), coarse, atol=0.05)
    assert fine[48, 32] == 1 and fine[20].max() == 0 and fine[:, :8].max() == 0


def test_lower_weights_are_one_on_average_and_largest_at_the_mouth():
    np.testing.assert_array_equal(losses.lower_weights(16, 12, 1.0), np.ones((8, 12)))
    weights = losses.lower_weights(16, 16, 8.0)
    assert weights.shape == (8, 16)
    assert weights.mean() == pytest.approx(1.0)
    assert weights[4, 8] == pytest.approx(8 * weights[0, 0])  # the mouth's middle, a temple

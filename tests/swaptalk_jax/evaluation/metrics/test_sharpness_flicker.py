"""Sharpness and flicker of a box, on pictures whose gradients and motion are known."""

import cv2
import numpy as np
import pytest

from swaptalk_jax.evaluation.metrics.flicker import flicker
from swaptalk_jax.evaluation.metrics.sharpness import sharpness

SIZE, BOX = 32, (8, 4, 24, 28)


def grey(levels):
    """[... h w] -> uint8 [... h w 3]."""
    return np.repeat(np.asarray(levels, np.uint8)[..., None], 3, axis=-1)


def test_the_sharpness_of_a_slope_is_its_rise_and_only_the_box_counts():
    slope = np.tile(3 * np.arange(SIZE), (SIZE, 1))
    noisy = np.random.default_rng(0).integers(0, 255, (SIZE, SIZE))
    y0, x0, y1, x1 = BOX
    noisy[y0 - 1 : y1 + 1, x0 - 1 : x1 + 1] = slope[y0 - 1 : y1 + 1, x0 - 1 : x1 + 1]
    assert sharpness(grey([slope, noisy]), [BOX] * 2) == pytest.approx([3, 3])


def test_a_blurred_mouth_is_less_sharp():
    mouth = grey(np.random.default_rng(1).integers(80, 180, (SIZE, SIZE)))
    sharp, soft = sharpness([mouth, cv2.GaussianBlur(mouth, None, 1.5)], [BOX] * 2)
    assert soft < 0.5 * sharp


def test_steady_change_does_not_flicker_and_jitter_does():
    flat = np.ones((SIZE, SIZE))
    steady = [grey((50 + 10 * t) * flat) for t in range(5)]
    jitter = [grey((50 + 3 * (-1) ** t) * flat) for t in range(5)]
    # Nothing is compared across runs: from 90 to 53 there is a jump.
    assert flicker(np.stack(steady + jitter), [BOX] * 10, 5) == pytest.approx([0, 12])


def test_a_run_is_looked_at_where_any_of_its_boxes_is():
    run = np.zeros((3, SIZE, SIZE, 3), np.uint8)
    run[1, 10, 20] = 100  # one pixel of 2 x 4 in the boxes together
    boxes = [(10, 18, 12, 20), (10, 19, 12, 21), (10, 20, 12, 22)]
    assert flicker(run, boxes, 3) == pytest.approx([200 / 8])

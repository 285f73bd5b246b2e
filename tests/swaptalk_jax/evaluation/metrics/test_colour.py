"""Tints outside of the head, on flat pictures whose colours are known."""

import numpy as np
import pytest

from swaptalk_jax.evaluation.metrics.colour import background_hue
from swaptalk_jax.evaluation.metrics.head import face_error, face_hull, head_hull

SIZE = 64
# A square face of 20 px: 68 landmarks, of which the corners count.
SQUARE = np.resize([[22, 36], [42, 36], [42, 56], [22, 56]], (68, 2)).astype(np.float32)
RED = np.hypot(80.09, 67.20)  # (a, b) of sRGB's red; grey has (0, 0)


def test_the_head_reaches_above_the_brows():
    rows, columns = np.nonzero(head_hull(SQUARE, SIZE))
    # Middle (32, 46): 10 px away are 12.5 to the sides and down, 24 up.
    assert (rows.min(), rows.max()) == (22, 58) and (columns.min(), columns.max()) == (20, 44)
    assert face_hull(SQUARE, SIZE).sum() == 21 * 21


@pytest.mark.parametrize("where, wanted", [("head", 0.0), ("background", RED)])
def test_a_tint_counts_in_the_background_alone(where, wanted):
    image = np.full((SIZE, SIZE, 3), 119, np.uint8)
    result, head = image.copy(), head_hull(SQUARE, SIZE)
    result[head if where == "head" else ~head] = [255, 0, 0]
    found = background_hue(image[None], result[None], [SQUARE])
    assert found == pytest.approx([wanted], abs=0.1)


def test_brightness_is_no_tint():
    images = np.full((2, SIZE, SIZE, 3), 90, np.uint8)
    assert background_hue(images, images + 60, [SQUARE] * 2) == pytest.approx([0, 0], abs=0.05)


def test_a_head_that_fills_the_picture_is_left_out():
    image = np.zeros((1, SIZE, SIZE, 3), np.uint8)
    assert len(background_hue(image, image, [SQUARE * 8 - 7 * 40])) == 0


def test_the_error_of_a_face_is_that_of_its_pixels():
    images = np.zeros((1, SIZE, SIZE, 3), np.uint8)
    results = np.full_like(images, 200)
    results[0, face_hull(SQUARE, SIZE)] = 3
    assert face_error(images, results, [SQUARE]) == pytest.approx([9])

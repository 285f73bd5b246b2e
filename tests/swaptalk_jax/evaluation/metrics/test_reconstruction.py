"""Measures of reconstructions on pictures whose faults are known."""

import numpy as np
import pytest

from swaptalk_jax.evaluation.metrics.reconstruction import edges_of_cells

SIZE, CELL = 32, 4


def smooth(seed):
    """uint8 [SIZE SIZE 3]: a slope with a little noise."""
    noise = np.random.default_rng(seed).normal(0, 1, (SIZE, SIZE, 3))
    return (4 * np.add.outer(np.arange(SIZE), np.arange(SIZE))[..., None] / 2 + noise).clip(0, 255)


def test_a_picture_without_a_grid_has_none():
    images = np.stack([smooth(i) for i in range(3)]).astype(np.uint8)
    assert edges_of_cells(images, CELL) == pytest.approx(np.ones(3), abs=0.1)


def test_tiles_show_at_their_own_size_alone():
    tiles = np.stack([smooth(i) for i in range(3)])
    offsets = np.random.default_rng(9).normal(0, 8, (3, SIZE // CELL, SIZE // CELL, 3))
    tiles = tiles + offsets.repeat(CELL, 1).repeat(CELL, 2)
    tiles = tiles.clip(0, 255).astype(np.uint8)
    assert (edges_of_cells(tiles, CELL) > 2).all()
    shifted = np.roll(tiles, CELL // 2, axis=(1, 2))
    assert (edges_of_cells(shifted, CELL) < 1).all()


def test_a_flat_picture_has_a_number():
    assert edges_of_cells(np.zeros((1, SIZE, SIZE, 3), np.uint8), CELL) == pytest.approx([1.0])

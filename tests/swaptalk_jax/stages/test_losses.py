"""Losses against values that can be worked out by hand."""

import jax
import numpy as np
import pytest

from swaptalk_jax.stages import losses

EYE = np.eye(3, dtype=np.float32)


def test_contrast_is_small_only_where_each_finds_its_own():
    ones = np.ones(3, np.float32)
    assert losses.contrast(EYE, EYE, ones) < 1e-5
    swapped = losses.contrast(EYE, EYE[[1, 0, 2]], ones)  # two of three questions answered wrongly
    assert float(swapped) == pytest.approx(2 / 3 / 0.07, rel=1e-3)
    # nothing is told apart: as likely as a guess among three
    assert float(losses.contrast(EYE[[0, 0, 0]], EYE[[0, 0, 0]], ones)) == pytest.approx(np.log(3))


def test_contrast_asks_only_pairs_in_sync():
    label = np.array([0, 0, 1], np.float32)
    assert losses.contrast(EYE, EYE[[1, 0, 2]], label) < 1e-5
    assert losses.contrast(EYE, EYE, np.zeros(3, np.float32)) == 0.0
    # a pair out of sync is still an answer: window 2 now takes sound 1 for its own
    assert losses.contrast(EYE[[0, 1, 1]], EYE[[0, 1, 2]], label) > 5.0


def test_the_sync_loss_is_minus_log_cosine_with_a_bounded_gradient_that_never_ends():
    cosine = np.linspace(0.06, 1.0, 20).astype(np.float32)
    np.testing.assert_allclose(losses.sync(cosine), -np.log(cosine), atol=1e-6)
    assert float(losses.sync(np.float32(0.0))) == pytest.approx(np.log(20) + 1)
    for x in (0.0, 1e-5, 0.01, 0.049, 0.05, 0.051, 0.5, 1.0):
        slope = float(jax.grad(lambda c: losses.sync(c))(np.float32(x)))
        assert -20.001 <= slope <= -0.999, x

"""How far lips open, against known openings. What needs dlib is skipped without `media`."""

import importlib.util
import types

import numpy as np
import pytest

from data_pipelines.synthetic import sampling
from swaptalk_jax.evaluation import renders
from swaptalk_jax.evaluation.metrics import lip_opening

WAVE = np.sin(np.arange(12))


def test_correlation_and_movement_of_known_openings():
    assert lip_opening.compare(0.5 * WAVE + 3, WAVE) == pytest.approx((1, 0.5))
    assert lip_opening.compare(-2 * WAVE, WAVE) == pytest.approx((-1, 2))
    assert lip_opening.compare(np.full(12, 0.2), WAVE) == pytest.approx((0, 0))


def test_lips_are_judged_by_clip_and_still_clips_are_left_out(monkeypatch):
    """Pictures are their own openings here; the second of three clips hardly moves."""

    class Reader:
        def openings(self, images, landmarks):
            assert len(images) == len(landmarks) == len(WAVE)
            return images

    moving = [True, False, True]
    clips = [{"codes": np.zeros(len(WAVE) + 1), "first": 100 * i} for i in range(3)]

    def images(rows):
        assert rows[0] % 100 == 1  # without the reference
        truth = WAVE if moving[rows[0] // 100] else 1e-3 * WAVE
        return truth, [{"landmarks": None}] * len(rows)

    def spoken(pipe, clip, other, frames):
        assert other is not clip and frames == len(WAVE) + 1
        own = WAVE if clip["first"] == 0 else -0.5 * WAVE
        return {"": own, "_floor": np.zeros(len(WAVE)), "_ceiling": 0.9 * WAVE}

    monkeypatch.setattr(lip_opening, "LipReader", Reader)
    monkeypatch.setattr(renders, "spoken", spoken)
    split = types.SimpleNamespace(clips=clips, images=images)
    numbers, examples, _ = lip_opening.lips(None, split)
    assert numbers == pytest.approx(
        {
            "lips/correlation": 0,
            "lips/movement": 0.75,
            "lips/correlation_floor": 0,
            "lips/correlation_ceiling": 1,
            "lips/movement_ceiling": 0.9,
        }
    )
    assert set(examples.values()) == {2}


def test_openings_found_anew_are_those_that_were_drawn():
    try:
        reader = lip_opening.LipReader()
    except ImportError as error:
        pytest.skip(str(error))
    clip = sampling.sample_clip(0, 0, 0, 25, 25)
    images, landmarks = zip(*(sampling.render_frame(clip, t, 128) for t in range(25)), strict=True)
    gap = np.stack(landmarks)[:, 62] - np.stack(landmarks)[:, 66]
    found = reader.openings(np.stack(images), np.stack(landmarks))
    correlation, _ = lip_opening.compare(found, np.linalg.norm(gap, axis=1))
    assert correlation > 0.8 and 0 <= found.min() < found.max() < 0.5


def test_without_the_extra_nothing_is_measured(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n: None if n == "dlib" else find(n))
    assert lip_opening.lips(None, None) == ({}, {}, {})

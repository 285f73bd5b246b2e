"""Which tokens of sound belong to a frame of video."""

from fractions import Fraction

import numpy as np

from data_pipelines.media.opening import MediaError
from data_pipelines.rates import FEATURE_RATE


def context_windows(
    features: np.ndarray, fps: Fraction, frames: int, context: int = 5, first: int = 0
) -> np.ndarray:
    """The tokens around each frame: float [n d] -> float32 [frames 2*context d].

    Row i belongs to frame `first` + i of a video at `fps` and starts at the token nearest to
    ((first + i + 0.5) / fps) * 50 - context, computed exactly: nothing drifts. Tokens before
    the first and after the last repeat it.
    """
    features = np.asarray(features)
    if features.ndim != 2 or not len(features):
        raise MediaError(f"features must be [n d] with n >= 1, not {list(features.shape)}")
    tokens = context_tokens(len(features), fps, frames, context, first)
    return features[tokens].astype(np.float32)


def context_tokens(
    count: int, fps: Fraction, frames: int, context: int = 5, first: int = 0
) -> np.ndarray:
    """Which of `count` tokens `context_windows` takes: int64 [frames 2*context]."""
    p, q = (Fraction(FEATURE_RATE) / Fraction(fps)).as_integer_ratio()
    # floor(x + 1/2), because round() sends halves to even numbers and would stutter at 50 fps; in
    # whole numbers, because Fraction takes a third of the time of a training example.
    starts = [((2 * (first + i) + 1) * p - (2 * context - 1) * q) // (2 * q) for i in range(frames)]
    tokens = np.asarray(starts, np.int64).reshape(-1, 1) + np.arange(2 * context)
    return np.clip(tokens, 0, count - 1)

"""A clip's mouth and sound, as numbers in which one tells the other (av_offset.py)."""

import dataclasses

import cv2
import numpy as np
import scipy.fft
import scipy.ndimage

from data_pipelines.faces import align
from data_pipelines.media import log_mel
from data_pipelines.rates import SAMPLES, TOKEN, TOKENS

MARGIN = 8  # frames of sound before and after the picture: the largest offset to be corrected
# Appearance of the mouth: a grey patch of 24 x 16, which is 3/8 x 1/4 of an FFHQ crop, of which the
# 6 x 4 slowest cosines tell open, round and toothy apart. 8 x 6 were no better in 98 real clips.
PATCH, PATCH_WIDTH, WAVES = (16, 24), 3 / 8, (4, 6)
STEADY = 4.0  # frames; the patch follows the head, not the jaw
COLUMNS = 3 + WAVES[0] * WAVES[1]
# A pose held for half a second says nothing about the moment: slower changes are taken out.
SLOW = 8.0  # frames
# The tokens of a frame and as many on each side, in ten bands. More of either made 3-s clips worse.
CONTEXT, BANDS = 2, 10


@dataclasses.dataclass(frozen=True)
class MouthAndSound:
    """name: unique. group: what a model must not have seen to judge the clip (the person; the video
    where all show one person). mouth: features() float32 [t COLUMNS]. sound int16 or float
    [640 (t + 2 MARGIN)] at 16 kHz from MARGIN frames before the first frame; zeros where the file
    has none."""

    name: str
    group: str
    mouth: np.ndarray
    sound: np.ndarray


def middles(landmarks: np.ndarray) -> np.ndarray:
    """Where patches of the mouth are centred: landmarks [t 68 2] -> float64 [t 2]."""
    lips = np.asarray(landmarks, np.float64)[:, 48:]
    return scipy.ndimage.gaussian_filter1d(lips.mean(1), STEADY, axis=0, mode="nearest")


def patch(image: np.ndarray, middle: np.ndarray) -> np.ndarray:
    """The mouth in an aligned crop uint8 [h w 3] RGB, grey: uint8 PATCH."""
    scale = PATCH[1] / (PATCH_WIDTH * image.shape[1])
    matrix = np.column_stack([np.eye(2) * scale, (np.array(PATCH[::-1]) - 1) / 2])
    matrix[:, 2] -= scale * middle
    return align.warp(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), matrix, PATCH)


def features(landmarks: np.ndarray, patches: np.ndarray, size: int) -> np.ndarray:
    """What the mouth looks like: float32 [t COLUMNS], for MouthAndSound.

    landmarks [t 68 2] in pixels of the aligned crops; patches: `patch` of each crop at `middles`,
    [t *PATCH]; size: side of the crops. Raises ValueError when their numbers differ.
    """
    if len(landmarks) != len(patches):
        raise ValueError(f"{len(landmarks)} landmarks of a clip, but {len(patches)} patches")
    lips, patches = np.asarray(landmarks, np.float64)[:, 48:], np.float64(patches)
    # By their contrast: light is not speech. 5 grey levels more, as a black picture has none.
    patches /= patches.std((1, 2)).mean() + 5
    gap = np.linalg.norm(lips[:, 13:16].mean(1) - lips[:, 17:20].mean(1), axis=1) / size
    width = np.linalg.norm(lips[:, 0] - lips[:, 6], axis=1) / size
    dark = -patches[:, 5:11, 7:17].mean((1, 2))
    waves = scipy.fft.dctn(patches, axes=(1, 2), norm="ortho")[:, : WAVES[0], : WAVES[1]]
    return np.column_stack([gap, dark, width, waves.reshape(len(waves), -1)]).astype(np.float32)


def mouth_features(clip):
    """Features without the clip's mean and what changes slowly: float64 [t COLUMNS]."""
    mouth = np.asarray(clip.mouth, np.float64)
    expected = SAMPLES * (len(mouth) + 2 * MARGIN)
    if mouth.ndim != 2 or mouth.shape[1] != COLUMNS or len(clip.sound) != expected:
        raise ValueError(
            f"{clip.name}: {len(clip.sound)} samples do not fit features {list(mouth.shape)};"
            f" [t {COLUMNS}] take {SAMPLES} (t + {2 * MARGIN})"
        )
    return mouth - scipy.ndimage.gaussian_filter1d(mouth, SLOW, axis=0, mode="nearest")


def sound_features(clip):
    """Loudness around each token: [TOKENS (t + 2 MARGIN), ...], NaN where there is no sound."""
    sound = np.asarray(clip.sound)
    sound = sound.astype(np.float32) / (32768 if sound.dtype.kind == "i" else 1)
    loud = log_mel.log_mel(sound).reshape(-1, 2, BANDS, log_mel.BANDS // BANDS).mean((1, 3))
    heard = np.flatnonzero(sound)
    known = np.zeros(len(loud), bool)
    if len(heard):  # silence at the ends is where the file had no more sound
        known[-(-heard[0] // TOKEN) : (heard[-1] + 1) // TOKEN] = True
    if known.any():
        loud = (loud - loud[known].mean(0)) / (loud[known].std(0) + 0.05)
    loud[~known] = np.nan
    loud = np.pad(loud, ((CONTEXT, CONTEXT + TOKENS - 1), (0, 0)), constant_values=np.nan)
    around = np.lib.stride_tricks.sliding_window_view(loud, TOKENS + 2 * CONTEXT, axis=0)
    around = around.transpose(0, 2, 1).reshape(len(around), -1).astype(np.float64)
    around[~np.isfinite(around).all(1)] = np.nan
    return around

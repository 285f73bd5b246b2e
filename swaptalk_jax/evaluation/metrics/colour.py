"""Errors of colour that an eye sees where a squared error is small: tints of large areas."""

import cv2
import numpy as np

from swaptalk_jax.evaluation.metrics.head import head_hull


def background_hue(images, results, landmarks):
    """Mean distance in the (a, b) plane of CIELAB of uint8 [n s s 3] pairs, outside of the head.

    landmarks [n 68 2]: of the heads, in pixels. About 2 can just be seen in a large area. Pictures
    without a background are left out: float64 [up to n].
    """
    found = []
    for image, result, points in zip(images, results, landmarks, strict=True):
        background = ~head_hull(points, image.shape[0])
        if background.any():
            apart = _chroma(image)[background] - _chroma(result)[background]
            found.append(np.linalg.norm(apart, axis=1).mean(dtype=np.float64))
    return np.array(found)


def _chroma(image):
    """uint8 [h w 3] -> (a, b) of CIELAB in its own units, float32 [h w 2]."""
    return cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[..., 1:]

"""Pixel errors of images."""

import numpy as np


def squared_error(images, results):
    """Mean squared error of uint8 [n h w 3] pairs -> [n]."""
    return np.square(images.astype(np.float32) - results).mean((1, 2, 3))


def psnr(images, results):
    """Peak signal-to-noise ratio in dB of uint8 [n h w 3] pairs -> [n]."""
    return 10 * np.log10(255.0**2 / np.maximum(squared_error(images, results), 1e-3))


def box_error(images, results, boxes):
    """Mean squared error [n] of uint8 [n h w 3] pairs inside boxes (y0, x0, y1, x1)."""
    return np.array(
        [
            np.square(a[y0:y1, x0:x1].astype(np.float32) - b[y0:y1, x0:x1]).mean()
            for a, b, (y0, x0, y1, x1) in zip(images, results, boxes, strict=True)
        ]
    )

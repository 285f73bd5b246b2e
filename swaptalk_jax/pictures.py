"""Pictures as files: grids of images, PNG and JPEG."""

from pathlib import Path

import cv2
import numpy as np

from data_pipelines.files import replace


def save_picture(path, image):
    """Writes uint8 [h w 3] RGB as PNG or JPEG by the path's suffix."""
    ok, data = cv2.imencode(Path(path).suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    if not ok:
        raise ValueError(f"{path}: cannot encode a picture of shape {image.shape}")
    replace(path, data.tobytes())


def grid(rows, scale_to=96):
    """Rows of images float [-1, 1] or uint8 [n h w 3] -> one uint8 picture, a row each.

    Small images are enlarged without smoothing to about `scale_to` pixels.
    """
    rows = [to_uint8(np.asarray(row)) for row in rows]
    factor = max(1, scale_to // rows[0].shape[1])
    return (
        np.concatenate([np.concatenate(list(row), axis=1) for row in rows])
        .repeat(factor, axis=0)
        .repeat(factor, axis=1)
    )


def to_uint8(image):
    """float [-1, 1] -> uint8, clipped and rounded; uint8 passes."""
    if image.dtype == np.uint8:
        return image
    return np.clip(np.rint((np.asarray(image, np.float32) + 1.0) * 127.5), 0, 255).astype(np.uint8)

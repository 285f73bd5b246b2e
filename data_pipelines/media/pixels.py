"""Decoded frames of a video -> upright RGB pictures with square pixels."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
from av.sidedata.sidedata import Type as SideData
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

# Without both flags FFmpeg's RGB <-> YUV conversion darkens a picture by 1 to 2 levels, each time.
SCALING = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT


def rgb(frame: av.VideoFrame, size: tuple[int, int], scaler: VideoReformatter) -> np.ndarray:
    """Decoded frame -> uint8 [h w 3], as it is stored; `size` is (width, height).

    Untagged pictures are read like players do: BT.709 from 720 lines on, else BT.601. The scaler is
    kept for a whole file, because setting one up takes longer than using it.
    """
    colorspace = None
    if frame.colorspace in (0, 2, 3):  # RGB, unspecified, reserved
        large = frame.width >= 1280 or frame.height > 576
        colorspace = Colorspace.ITU709 if large else Colorspace.ITU601
    image = scaler.reformat(
        frame,
        width=size[0],
        height=size[1],
        format="rgb24",
        src_colorspace=colorspace,
        dst_color_range=ColorRange.JPEG,
        interpolation=SCALING,
        threads=1,
    )
    return image.to_ndarray()


def turning(frame: av.VideoFrame) -> list[list[int]] | None:
    """The display matrix's [[a, b], [c, d]]; None where the picture is stored upright."""
    matrix = frame.side_data.get(SideData.DISPLAYMATRIX)
    return matrix and np.frombuffer(matrix, np.int32).reshape(3, 3)[:2, :2].tolist()


def upright(image: np.ndarray, turning: list[list[int]] | None) -> np.ndarray:
    """Applies the display matrix: (x, y) -> (a x + c y, b x + d y), quarter turns and mirrors."""
    if turning is None:
        return image
    (a, b), (c, d) = turning
    if abs(b) > abs(a):
        image, a, d = image.swapaxes(0, 1), c, b
    image = image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
    return np.ascontiguousarray(image)


def stored_size(stream) -> tuple[int, int]:
    """(width, height) in square pixels, before any turning."""
    context = stream.codec_context
    aspect = stream.sample_aspect_ratio
    if not aspect or not Fraction(1, 4) < aspect < 4:
        aspect = Fraction(1)
    return round(context.width * aspect), context.height

"""Shapes of the synthetic set: patches of a canvas, signed distances and soft edges.

Every layer lives in a patch (the bounding box of its shape), with coordinates in the shape's own
frame, so cost follows the drawn area. Edges are at least EDGE head units soft: pictures hold no
detail finer than that, so sizes agree with each other and a small autoencoder can learn them.
"""

import numpy as np

EDGE = 0.010  # head units, the scale of the logistic at large sizes


class Patch:
    """A window of the canvas with local coordinates u, v float32 [ph pw] and the edge softness."""

    def __init__(self, image, origin, matrix, box):
        """image [3 h w]; pixel = origin + matrix @ (u, v); box (u0, v0, u1, v1) is drawn."""
        height, width = image.shape[1:]
        (x, y), ((a, b), (c, d)), (u0, v0, u1, v1) = origin.tolist(), matrix.tolist(), box
        middle_u, middle_v, half_u, half_v = (
            (u0 + u1) / 2,
            (v0 + v1) / 2,
            (u1 - u0) / 2,
            (v1 - v0) / 2,
        )
        middle_x, middle_y = x + a * middle_u + b * middle_v, y + c * middle_u + d * middle_v
        reach_x, reach_y = abs(a) * half_u + abs(b) * half_v, abs(c) * half_u + abs(d) * half_v
        # Two pixels of room for the soft edge; empty where the box lies outside the canvas.
        x0, y0 = max(int(middle_x - reach_x) - 2, 0), max(int(middle_y - reach_y) - 2, 0)
        x1 = max(min(int(middle_x + reach_x) + 3, width), x0)
        y1 = max(min(int(middle_y + reach_y) + 3, height), y0)
        self.window = image[:, y0:y1, x0:x1]
        column = np.arange(x0, x1, dtype=np.float32) - x
        row = np.arange(y0, y1, dtype=np.float32)[:, None] - y
        area = a * d - b * c
        self.u = (d / area) * column - (b / area) * row
        self.v = (a / area) * row - (c / area) * column
        self.soft = max(EDGE, 0.33 / abs(area) ** 0.5)

    def inside(self, distance, soft: float = 0.0):
        """Coverage in [0, 1] of a signed distance (negative inside), edge at least `soft` wide."""
        return 0.5 - 0.5 * np.tanh(distance * (0.5 / max(soft, self.soft)))

    def paint(self, coverage, colour) -> None:
        """Blend a colour [3] (or [3 ph pw]) over the canvas."""
        colour = np.asarray(colour, np.float32)
        if colour.ndim == 1:
            colour = colour[:, None, None]
        self.window += coverage * (colour - self.window)

    def scale(self, factor) -> None:
        """Multiply the canvas, for light and shadow."""
        self.window *= factor


def ellipse(u, v, a, b):
    """Approximate signed distance to an ellipse of radii a, b at the origin."""
    k0 = np.sqrt((u / a) ** 2 + (v / b) ** 2)
    k1 = np.sqrt((u / a**2) ** 2 + (v / b**2) ** 2)
    return k0 * (k0 - 1) / (k1 + 1e-4)


def capsule(u, v, start, end, radius):
    """Signed distance to a segment with round ends."""
    (x0, y0), (x1, y1) = start, end
    dx, dy = x1 - x0, y1 - y0
    t = np.clip(((u - x0) * dx + (v - y0) * dy) / (dx * dx + dy * dy + 1e-9), 0, 1)
    return np.sqrt((u - x0 - t * dx) ** 2 + (v - y0 - t * dy) ** 2) - radius


def glow(u, v, a, b):
    """Gaussian spot of standard deviations a, b."""
    return np.exp(-0.5 * ((u / a) ** 2 + (v / b) ** 2))


def pick(palette: np.ndarray, unit: float) -> np.ndarray:
    """Colour at `unit` in [0, 1] along a palette [n 3], linearly interpolated."""
    at = unit * (len(palette) - 1)
    low = min(int(at), len(palette) - 2)
    return palette[low] + (at - low) * (palette[low + 1] - palette[low])

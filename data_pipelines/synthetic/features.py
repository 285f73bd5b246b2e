"""What a synthetic face has on its skin: nose, mouth, eyes, brows and glasses (face.Painter)."""

import numpy as np

from data_pipelines.synthetic.canvas import capsule, ellipse, glow, pick
from data_pipelines.synthetic.head import ramp, span

_FRAMES = np.array([(0.08, 0.08, 0.10), (0.45, 0.22, 0.10), (0.65, 0.12, 0.15), (0.15, 0.30, 0.55)])


def nose(painter) -> None:
    """Ridge, tip and nostrils."""
    h, skin = painter.head, painter.skin
    ridge = h.project([(0, y, h.surface(0, y) + lift) for y, lift in h.ridge()]).tolist()
    base = h.project([[0, h.nose_y, h.surface(0, h.nose_y) + 0.05]]).tolist()[0]
    top, tip, w = ridge[0], ridge[-1], h.nose_w
    p = painter.patch((base[0] - 0.45, top[1] - 0.1, base[0] + 0.45, base[1] + 0.2))
    away = -0.06 * painter.s.light[0] - 0.25 * (tip[0] - base[0])
    side = capsule(p.u - away, p.v, top, tip, 0.035)
    p.paint(0.30 * p.inside(side, 0.025), skin * np.array([0.80, 0.70, 0.66]))
    under = ellipse(p.u - base[0], p.v - base[1] + 0.015, w, 0.075)
    p.paint(0.50 * p.inside(under, 0.018), skin * np.array([0.80, 0.66, 0.62]))
    ball = ellipse(p.u - tip[0], p.v - tip[1] - 0.012, 0.72 * w, 0.075)
    p.paint(0.75 * p.inside(ball, 0.02), skin * np.array([1.0, 0.94, 0.92]))
    p.paint(0.55 * p.inside(capsule(p.u, p.v, top, tip, 0.022), 0.02), skin * 1.04)
    for k in (-1, 1):
        hole = ellipse(p.u - base[0] - k * 0.46 * w, p.v - base[1] - 0.012, 0.034, 0.017)
        p.paint(0.75 * p.inside(hole), skin * np.array([0.42, 0.28, 0.26]))
    p.paint(0.5 * glow(p.u - tip[0], p.v - tip[1], 0.03, 0.025), np.minimum(skin * 1.25, 1))


def mouth(painter) -> None:
    """Lips, and between them the cavity with tongue and teeth."""
    h, s = painter.head, painter.s
    p = painter.patch((-0.45, -0.3, 0.45, 0.45), h.mouth())
    at = p.u / h.mouth_w
    upper, lower = h.outer_lips(at)
    side = (np.abs(at) - 1) * h.mouth_w
    shadow = glow(p.u, p.v - float(h.outer_lips(0.0)[1]) - 0.05, 0.6 * h.mouth_w, 0.03)
    p.paint(0.30 * shadow, painter.skin * 0.62)
    lips = p.inside(np.maximum(np.maximum(upper - p.v, p.v - lower), side))
    top, bottom = h.inner_lips(at)
    middle = 0.5 * (top + bottom)
    tone = np.where(p.v < middle, np.float32(0.86), np.float32(1.0))
    p.paint(lips, painter.lip[:, None, None] * tone)
    shine = glow(p.u, p.v - 0.5 * (bottom + lower), 0.35 * h.mouth_w, 0.02)
    p.paint(0.35 * lips * shine, np.minimum(painter.lip * 1.35 + 0.06, 1))
    # Closed lips keep a dark line; it is the cavity's own edge at opening 0.
    side = (np.abs(at) - 0.93) * h.mouth_w
    gap = np.maximum(np.maximum(top - p.v, p.v - bottom) - 0.008, side)
    cavity = p.inside(gap)
    p.paint(cavity, (0.20, 0.05, 0.06))
    if h.aperture > 0.02:
        tongue = ellipse(
            p.u,
            p.v - float(h.inner_lips(0.0)[1]),
            0.62 * h.mouth_w,
            h.aperture * span(s.tongue, 0.18, 0.55),
        )
        p.paint(cavity * p.inside(tongue, 0.015) * min(1.0, 0.3 + s.tongue), (0.78, 0.33, 0.35))
        teeth = np.maximum(p.v - top - 0.085 * s.teeth, side + 0.04)
        p.paint(cavity * p.inside(teeth) * s.teeth**0.5, (0.95, 0.93, 0.89))
        low = np.maximum(bottom - 0.05 * s.teeth - p.v, side + 0.07)
        p.paint(cavity * p.inside(low) * 0.75 * ramp(s.teeth, 0.55, 1.0), (0.86, 0.83, 0.79))


def eye(painter, side: int) -> None:
    """An eye with its lids; side: -1 (left in the picture) or 1."""
    h, i, s = painter.head, painter.i, painter.s
    w = h.eye_w
    p = painter.patch((-1.3 * w, -1.3 * w, 1.3 * w, 1.1 * w), h.eye(side))
    at = p.u / w
    upper, lower = h.lids(at)
    corner = (np.abs(at) - 1) * w
    eye = p.inside(np.maximum(np.maximum(upper - p.v, p.v - lower), corner))
    fold = np.abs(p.v - 1.35 * upper + 0.02) - 0.006
    p.paint(0.35 * p.inside(np.maximum(fold, corner), 0.014), painter.skin * 0.55)
    p.paint(eye, (0.97, 0.96, 0.95))
    x, y = 0.30 * w * s.gaze_x, 0.06 * w + 0.15 * w * s.gaze_y
    from_iris = np.hypot(p.u - x, p.v - y)
    p.paint(eye * p.inside(from_iris - 0.48 * w), painter.iris)
    p.paint(eye * p.inside(from_iris - 0.22 * w), (0.04, 0.03, 0.04))
    p.paint(
        eye * p.inside(np.hypot(p.u - x + 0.14 * w, p.v - y + 0.16 * w) - 0.08 * w),
        (1.0, 1.0, 1.0),
    )
    shade = np.exp(-(((p.v - upper) / (0.22 * w)) ** 2))
    p.paint(0.35 * eye * shade, (0.30, 0.25, 0.28))  # the lid's shadow
    lash = np.abs(p.v - upper) - span(i.eye_lash, 0.007, 0.022)
    p.paint(0.9 * p.inside(np.maximum(lash, corner - 0.01)), painter.hair * 0.25 + 0.02)
    lash = np.abs(p.v - lower) - 0.003
    p.paint(0.4 * p.inside(np.maximum(lash, corner)), painter.skin * 0.4)


def brow(painter, side: int) -> None:
    """A brow; side as in `eye`."""
    h, i = painter.head, painter.i
    p = painter.patch((-0.26, -0.16, 0.26, 0.16), h.brow(side))
    at = p.u / 0.18
    taper = 1 - 0.45 * ramp(side * at, -0.3, 1.0)
    thick = span(i.brow_thickness, 0.014, 0.05) * taper
    d = np.maximum(np.abs(p.v - h.brow_line(at)) - thick, np.abs(p.u) - 0.18)
    colour = painter.hair * span(i.brow_dark, 0.45, 0.85)
    p.paint(0.92 * p.inside(d, 0.012), colour)


def glasses(painter) -> None:
    """Rims, bridge and temples, where they are worn."""
    worn = ramp(painter.i.glasses, 0.64, 0.70)
    if worn == 0:
        return
    h, i = painter.head, painter.i
    colour = pick(_FRAMES, i.glasses_colour)
    round_ = span(i.glasses_shape, 0.04, 0.15)
    a, b = min(h.eye_x - 0.05, 0.235), span(i.glasses_shape, 0.14, 0.19)
    round_ = min(round_, a, b) - 0.005
    for side in (-1, 1):
        origin, matrix = h.place(side * h.eye_x, 0.02, 0.10)
        p = painter.patch((-0.6, -0.3, 0.6, 0.3), (origin, matrix))
        x, y = np.abs(p.u) - a + round_, np.abs(p.v) - b + round_
        box = np.hypot(np.maximum(x, 0), np.maximum(y, 0)) + np.minimum(np.maximum(x, y), 0)
        rim = np.abs(box - round_) - 0.017
        bridge = capsule(side * p.u, p.v, (-h.eye_x, -0.03), (-a, -0.03), 0.014)
        ear = h.width - 0.06 - h.eye_x
        temple = capsule(side * p.u, p.v, (a, -0.05), (ear, -0.05), 0.014)
        p.paint(0.10 * worn * p.inside(box - round_), (0.85, 0.92, 1.0))
        p.paint(worn * p.inside(np.minimum(np.minimum(rim, bridge), temple)), colour)

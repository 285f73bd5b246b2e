"""Geometry of a synthetic head: identity, momentary state, projection, curves and landmarks.

Head units: the origin is the middle of the head at eye level, 1 is half the head's height, x to
the image's right, y down, z toward the viewer. Features sit on an ellipsoid; a feature's local
coordinates (u, v) lie in the tangent plane there, so turning foreshortens and shifts it.
Landmarks are points of the same curves that synthetic_face.py draws.
"""

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Identity:
    """What makes a person: 44 numbers, each uniform in [0, 1] over the set.

    Appearance varies continuously in every one of them; the last three are the voice.
    """

    head_width: float
    cheek: float
    jaw: float
    chin: float
    skin_tone: float
    skin_warmth: float
    blush: float
    hair_light: float
    hair_red: float
    hair_gray: float
    hair_line: float
    hair_volume: float
    hair_length: float
    hair_fringe: float
    hair_part: float
    brow_thickness: float
    brow_height: float
    brow_tilt: float
    brow_arch: float
    brow_dark: float
    eye_spacing: float
    eye_size: float
    eye_open: float
    eye_tilt: float
    eye_colour: float
    eye_lash: float
    nose_width: float
    nose_length: float
    nose_bridge: float
    mouth_height: float
    lip_width: float
    lip_upper: float
    lip_lower: float
    lip_colour: float
    ears: float
    neck: float
    glasses: float
    glasses_shape: float
    glasses_colour: float
    beard: float
    moustache: float
    voice_pitch: float
    voice_tract: float
    voice_breath: float


@dataclass(frozen=True)
class State:
    """All of a clip at one frame but the identity: motion, mouth, light, background, clothes.

    yaw (positive: the face turns to the image's right), pitch (positive: down), roll (clockwise)
    in radians. x, y: head origin in fractions of the frame's height, from the frame's centre and
    top. scale: head unit in fractions of the frame's height. blink, opening, rounding, teeth,
    tongue in [0, 1]; gaze, smile, brow, width in [-1, 1]. light: direction x, y (toward the
    light) and strength. tint multiplies the whole picture. backdrop: the colours at the top and
    the bottom. blobs: blurred lights of the background, each (x, y, radius, red, green, blue) in
    fractions of the frame's height from its top centre. Colours are RGB in [0, 1]. collar: depth
    of the neckline in [0, 1].
    """

    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0
    x: float = 0.0
    y: float = 0.46
    scale: float = 0.24
    blink: float = 0.0
    gaze_x: float = 0.0
    gaze_y: float = 0.0
    smile: float = 0.2
    brow: float = 0.0
    opening: float = 0.0
    width: float = 0.0
    rounding: float = 0.0
    teeth: float = 0.0
    tongue: float = 0.0
    light: tuple[float, float, float] = (-0.5, -0.5, 0.5)
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)
    backdrop: tuple[tuple[float, float, float], ...] = ((0.5, 0.6, 0.65), (0.3, 0.4, 0.45))
    blobs: tuple[tuple[float, float, float, float, float, float], ...] = ()
    clothes: tuple[float, float, float] = (0.25, 0.3, 0.45)
    collar: float = 0.5


def span(unit: float, low: float, high: float) -> float:
    """A trait in [0, 1] -> a measure between low and high."""
    return low + (high - low) * unit


def ramp(value, low: float, high: float):
    """Smooth step from 0 at low to 1 at high."""
    t = (value - low) / (high - low)
    t = np.clip(t, 0.0, 1.0) if isinstance(t, np.ndarray) else min(max(t, 0.0), 1.0)
    return t * t * (3 - 2 * t)


class Head:
    """Curves of one identity in one state, in head units before roll and scale."""

    def __init__(self, identity: Identity, state: State):
        self.identity, self.state = identity, state
        i, s = identity, state
        cy, sy, cp, sp = math.cos(s.yaw), math.sin(s.yaw), math.cos(s.pitch), math.sin(s.pitch)
        turn = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
        nod = np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
        self.view = (nod @ turn)[:2]  # orthographic: the first two rows of the rotation

        self.width = span(i.head_width, 0.63, 0.80)
        self.chin = span(i.chin, 0.92, 1.07)
        self.eye_x = span(i.eye_spacing, 0.27, 0.35)
        self.eye_w = span(i.eye_size, 0.14, 0.185)
        self.nose_y = span(i.nose_length, 0.34, 0.45)
        self.nose_w = span(i.nose_width, 0.10, 0.19)
        # The mouth keeps between nose and chin whatever the two are.
        self.mouth_y = self.nose_y + span(i.mouth_height, 0.17, 0.24)
        self.aperture = 0.33 * s.opening
        wide = 0.22 * s.width if s.width > 0 else 0.16 * s.width
        self.mouth_w = span(i.lip_width, 0.22, 0.32) * (1 + wide - 0.34 * s.rounding)
        self.outline, self.jaw_points = self._outline()

    def surface(self, x: float, y: float) -> float:
        """Depth of the face's ellipsoid at (x, y)."""
        return 0.72 * math.sqrt(max(1 - (x / 1.05) ** 2 - (y / 1.5) ** 2, 0.05))

    def project(self, points) -> np.ndarray:
        """Points [n 3] in head units -> [n 2] on the picture plane, before roll and scale."""
        return np.asarray(points, float) @ self.view.T

    def place(self, x: float, y: float, lift: float = 0.0, tilt: float = 0.0):
        """The tangent frame at (x, y) -> origin [2], matrix [2 2]: picture = origin + matrix @ uv.

        lift moves it off the surface toward the viewer; tilt turns it clockwise in its plane.
        """
        z = self.surface(x, y)
        slope = -(0.72**2) / z
        tangents = np.array([[1, 0, slope * x / 1.05**2], [0, 1, slope * y / 1.5**2]])
        matrix = (tangents @ self.view.T).T
        c, s = math.cos(tilt), math.sin(tilt)
        return self.project([[x, y, z + lift]])[0], matrix @ np.array([[c, -s], [s, c]])

    def _outline(self):
        """The head's contour -> closed polygon [112 2], and the indices of landmarks 0-16."""
        i = self.identity
        phi = np.linspace(0, np.pi, 65)  # from the image's left at eye level, through the chin
        c, s = np.cos(phi), np.sin(phi)
        bulge = 1 + span(i.cheek, -0.03, 0.06) * np.sin(2 * phi) ** 2
        x = -self.width * np.sign(c) * np.abs(c) ** span(i.jaw, 1.12, 0.70) * bulge
        y = self.chin * s
        y = y + 0.5 * self.aperture * ramp(y, 0.25, 0.95)  # the jaw drops as the mouth opens
        lower = np.stack([x, y, 0.42 * s], 1)
        phi = np.linspace(0, np.pi, 49)[1:-1]
        c, s = np.cos(phi), np.sin(phi)
        top = np.stack([self.width * np.sign(c) * np.abs(c) ** 0.78, -s, 0.05 * s], 1)
        return self.project(np.concatenate([lower, top])), np.arange(0, 65, 4)

    # Curves. Each takes s in [-1, 1] along the feature and returns v in the feature's own frame.

    def eye(self, side: int):
        """Frame of the eye on the image's left (side -1) or right (side 1)."""
        return self.place(
            side * self.eye_x, 0.0, 0.0, side * -span(self.identity.eye_tilt, -0.1, 0.16)
        )

    def lids(self, s):
        """Upper and lower lid at s -> (upper, lower) v; at blink 1 they meet below the middle."""
        arch = np.maximum(1 - s * s, 0.0)
        size = self.eye_w * span(self.identity.eye_open, 0.46, 0.70)
        lower = 0.62 * size * arch
        upper = -size * arch * (1 - self.state.blink) + self.state.blink * 0.55 * size * arch
        return upper, lower

    def brow(self, side: int):
        """Frame of a brow."""
        i = self.identity
        y = -span(i.brow_height, 0.155, 0.225) - 0.035 * self.state.brow
        return self.place(side * (self.eye_x + 0.01), y, 0.04, side * span(i.brow_tilt, -0.2, 0.2))

    def brow_line(self, s):
        """Centre line of a brow at s."""
        return -span(self.identity.brow_arch, 0.01, 0.075) * (1 - s * s)

    def mouth(self):
        """Frame of the mouth."""
        return self.place(0.0, self.mouth_y + 0.04 * self.state.opening, 0.04)

    def inner_lips(self, s):
        """Inner contours of the lips at s = u / mouth_w -> (upper, lower) v. Their distance at
        s = 0 is the aperture, 0.33 x opening."""
        arch = np.maximum(1 - (s / 0.93) ** 2, 0.0) ** (0.75 - 0.2 * self.state.rounding)
        bend = 0.055 * self.state.smile * (0.4 - s * s)
        return bend - 0.36 * self.aperture * arch, bend + 0.64 * self.aperture * arch

    def outer_lips(self, s):
        """Outer contours of the lips at s -> (upper, lower) v, with the bow of the upper lip."""
        i, r = self.identity, self.state.rounding
        arch = np.maximum(1 - s * s, 0.0)
        upper, lower = self.inner_lips(s)
        bow = 1 - 0.22 * np.exp(-((s / 0.2) ** 2))
        stretch = 1 - 0.12 * self.state.opening  # an open mouth draws its lips thinner
        above = span(i.lip_upper, 0.045, 0.105) * (1 + 0.3 * r) * stretch
        below = span(i.lip_lower, 0.06, 0.13) * (1 + 0.3 * r) * stretch
        return upper - above * arch**0.75 * bow, lower + below * arch**0.65

    def landmarks(self) -> np.ndarray:
        """The 68 points of the 300-W order -> float64 [68 2], head units before roll and scale."""
        third, w, base = 1 / 3, self.nose_w, self.nose_y
        bridge = [(0, y, self.surface(0, y) + lift) for y, lift in self.ridge()]
        wings = [
            (k * 0.5 * w, base - 0.012 * abs(k), self.surface(0, base) + 0.05 - 0.01 * abs(k))
            for k in (-2, -1, 0, 1, 2)
        ]
        s5 = np.linspace(-1, 1, 5)
        brows = [self._on(self.brow(k), 0.18 * s5, self.brow_line(s5)) for k in (-1, 1)]
        along = np.array([-1, -third, third, 1, third, -third])
        upper, lower = self.lids(along)
        lid = np.where(np.arange(6) < 4, upper, lower)
        eyes = [self._on(self.eye(k), self.eye_w * along, lid) for k in (-1, 1)]
        return np.concatenate(
            [self.outline[self.jaw_points], *brows, self.project(bridge), self.project(wings)]
            + eyes
            + [self._lip_points()]
        )

    def ridge(self):
        """(y, lift) of landmarks 27-30: the nose's ridge from between the eyes to its tip."""
        tip, bridge = self.nose_y - 0.07, span(self.identity.nose_bridge, 0.02, 0.07)
        return [(tip * k / 3 + 0.01 * (3 - k), bridge + (0.15 - bridge) * k / 3) for k in range(4)]

    def _lip_points(self) -> np.ndarray:
        outer = np.array([-1, -0.62, -0.25, 0, 0.25, 0.62, 1, 0.62, 0.3, 0, -0.3, -0.62])
        upper, lower = self.outer_lips(outer)
        v_outer = np.where(np.arange(12) < 7, upper, lower)
        inner = np.array([-0.93, -0.4, 0, 0.4, 0.93, 0.4, 0, -0.4])
        upper, lower = self.inner_lips(inner)
        v_inner = np.where(np.arange(8) < 5, upper, lower)
        u = self.mouth_w * np.concatenate([outer, inner])
        return self._on(self.mouth(), u, np.concatenate([v_outer, v_inner]))

    @staticmethod
    def _on(frame, u, v) -> np.ndarray:
        """Points (u, v) of a frame -> [n 2] on the picture plane."""
        origin, matrix = frame
        return origin + np.stack([u, v], 1) @ matrix.T

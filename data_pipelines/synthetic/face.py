"""Drawing of a synthetic head: layers of signed-distance shapes with logistic edges.

The order of the methods in `Painter.draw` is the order of the layers. Colours are RGB in [0, 1].
"""

import math

import numpy as np

from data_pipelines.synthetic import features
from data_pipelines.synthetic.canvas import Patch, ellipse, glow, pick
from data_pipelines.synthetic.head import Head, Identity, State, ramp, span

_POLAR = 256  # samples of a polar contour: under 0.1 px of error at 512 px

_SKIN = np.array(
    [
        (0.99, 0.87, 0.78),
        (0.94, 0.76, 0.63),
        (0.82, 0.60, 0.45),
        (0.62, 0.42, 0.29),
        (0.40, 0.26, 0.19),
    ]
)
_HAIR = np.array([(0.07, 0.06, 0.06), (0.25, 0.16, 0.10), (0.50, 0.33, 0.18), (0.88, 0.73, 0.45)])
_EYES = np.array(
    [
        (0.22, 0.13, 0.08),
        (0.42, 0.26, 0.12),
        (0.35, 0.45, 0.22),
        (0.25, 0.50, 0.60),
        (0.30, 0.45, 0.75),
    ]
)


class Painter:
    """Draws one face on a canvas float32 [3 h w]; `draw` does it, `image` holds it."""

    def __init__(self, identity: Identity, state: State, size: tuple[int, int]):
        self.i, self.s = identity, state
        self.head = Head(identity, state)
        self.size = size
        height, width = size
        self.unit = state.scale * height
        # Pixel centres are at integers: the continuous frame is [-0.5, size - 0.5].
        self.centre = np.array([width / 2 + state.x * height - 0.5, state.y * height - 0.5])
        c, s = np.cos(state.roll), np.sin(state.roll)
        self.roll = np.array([[c, -s], [s, c]])
        self.image = self._background()
        self._colours()

    def _colours(self) -> None:
        i = self.i
        warm = np.array([0.03, 0.0, -0.03]) * (2 * i.skin_warmth - 1)
        self.skin = np.clip(pick(_SKIN, i.skin_tone) * (1 + warm), 0, 1)
        red = np.array([0.55, 0.24, 0.12]) * (0.6 + 0.6 * i.hair_light)
        hair = pick(_HAIR, i.hair_light)
        hair = hair + 0.9 * ramp(i.hair_red, 0.6, 0.95) * (red - hair)
        gray = np.array([0.72, 0.71, 0.70]) * (0.75 + 0.3 * i.hair_light)
        self.hair = hair + 0.9 * ramp(i.hair_gray, 0.72, 0.95) * (gray - hair)
        self.iris = pick(_EYES, i.eye_colour)
        lip = np.array([0.80, 0.30, 0.32]) * (0.55 + 0.45 * self.skin.mean())
        self.lip = self.skin * np.array([0.88, 0.68, 0.66])
        self.lip = self.lip + span(i.lip_colour, 0.1, 0.95) * (lip - self.lip)

    def draw(self) -> None:
        self._hair_behind()
        self._neck_and_clothes()
        self._ears()
        self._skin()
        features.nose(self)
        self._beard()
        features.mouth(self)
        for side in (-1, 1):
            features.eye(self, side)
            features.brow(self, side)
        features.glasses(self)
        self._hair_front()
        self._shade()

    def patch(self, box, frame=None, body: bool = False) -> Patch:
        """A patch in the head's frame, in a feature's `frame` of it, or in the upright body's."""
        origin, matrix = (np.zeros(2), np.eye(2)) if frame is None else frame
        roll = np.eye(2) if body else self.roll
        return Patch(
            self.image, self.centre + self.unit * roll @ origin, self.unit * roll @ matrix, box
        )

    def _background(self) -> np.ndarray:
        height, width = self.size
        x = ((np.arange(width, dtype=np.float32) + 0.5) - width / 2) / height
        y = (np.arange(height, dtype=np.float32) + 0.5) / height
        top, bottom = np.array(self.s.backdrop, np.float32)
        column = top[:, None] + y * (bottom - top)[:, None]
        image = np.repeat(column[:, :, None], width, 2)
        for bx, by, radius, *colour in self.s.blobs:
            across = np.exp(-0.5 * ((x - bx) / radius) ** 2).astype(np.float32)
            down = np.exp(-0.5 * ((y - by) / radius) ** 2).astype(np.float32)
            image += np.array(colour, np.float32)[:, None, None] * (down[:, None] * across)
        return np.clip(image, 0.02, 0.98)

    def _hair_behind(self) -> None:
        i, w = self.i, self.head.width
        length = span(ramp(i.hair_length, 0.35, 1.0), 0.0, 1.75)
        if length < 0.25:
            return
        p = self.patch((-1.3, -1.3, 1.3, 2.0))
        wide = w + span(i.hair_volume, 0.06, 0.24) - 0.10 * ramp(p.v, 0.3, 1.6)
        top, bottom = -0.2, length - 0.25
        d = np.hypot(p.u, np.maximum(p.v - bottom, 0) + np.minimum(p.v - top, 0)) - wide
        p.paint(p.inside(d, 0.02), self.hair * 0.70)

    def _neck_and_clothes(self) -> None:
        i, s = self.i, self.s
        # Neck and clothes stay upright while the head rolls about the base of the skull.
        foot = np.array([-0.55 * math.sin(s.roll), 0.0])
        neck = span(i.neck, 0.33, 0.46) * self.head.width / 0.72
        p = self.patch((-0.9, 0.3, 0.9, 2.2), (foot, np.eye(2)), body=True)
        flare = neck + 0.35 * ramp(p.v, 1.15, 1.75) ** 2
        shadow = 1 - 0.30 * np.exp(-(((p.v - 1.0) / 0.28) ** 2))
        p.paint(p.inside(np.abs(p.u) - flare, 0.015), self.skin[:, None, None] * 0.93 * shadow)
        height, width = self.size
        far = float(width / self.unit)  # beyond either edge of the frame
        p = self.patch((-far, 1.0, far, 3.5), (foot, np.eye(2)), body=True)
        shoulders = 1.42 + 0.30 * (np.abs(p.u) / 1.1) ** 2 - p.v
        cut = ellipse(p.u, p.v - 1.15, 0.50, span(s.collar, 0.32, 0.62))
        cloth = p.inside(np.maximum(shoulders * 0.85, -cut), 0.015)
        colour = np.array(s.clothes)[:, None, None] * (0.84 + 0.22 * np.exp(-((p.u / 0.9) ** 2)))
        p.paint(cloth, colour)
        p.paint(
            cloth * p.inside(np.abs(cut - 0.035) - 0.03, 0.015) * 0.5, np.array(s.clothes) * 0.6
        )

    def _ears(self) -> None:
        size = span(self.i.ears, 0.10, 0.155)
        for side in (-1, 1):
            x, y = self.head.project([[side * (self.head.width + 0.2 * size), 0.13, -0.12]])[0]
            p = self.patch((-0.2, -0.3, 0.2, 0.3), (np.array([x, y]), np.eye(2)))
            d = ellipse(p.u, p.v, size * 0.85, size * 1.5)
            p.paint(p.inside(d), self.skin * 0.95)
            p.paint(0.45 * glow(p.u - side * 0.02, p.v, size * 0.35, size * 0.6), self.skin * 0.66)

    def _polar(self, p: Patch, radius: np.ndarray):
        """Look a contour radius [_POLAR] up at the patch's angles."""
        if not hasattr(p, "turn"):
            at = (np.arctan2(p.v, p.u) + np.float32(np.pi)) * np.float32(_POLAR / (2 * np.pi))
            low = at.astype(np.int32)
            p.turn = low % _POLAR, at - low
        low, part = p.turn
        step = np.roll(radius, -1) - radius
        return radius.take(low) + part * step.take(low)

    def _skin(self) -> None:
        """The face itself; keeps its patch and the contour for beard, hair and light."""
        x, y = self.head.outline.T
        angle = np.arctan2(y, x)
        grid = np.arange(_POLAR) * (2 * np.pi / _POLAR) - np.pi
        radius = np.interp(grid, *_sorted(angle, np.hypot(x, y)), period=2 * np.pi)
        slope = (np.roll(radius, -1) - np.roll(radius, 1)) * (_POLAR / (4 * np.pi))
        self.contour, self.contour_angle = radius.astype(np.float32), grid
        steep = (radius / np.hypot(radius, slope)).astype(np.float32)
        p = self.face = self.patch((-1.2, -1.35, 1.2, 1.35))
        p.rho = np.hypot(p.u, p.v)
        self.skin_cover = p.inside((p.rho - self._polar(p, self.contour)) * self._polar(p, steep))
        p.paint(self.skin_cover, self.skin)
        i = self.i
        cheek = self.skin * np.array([1.0, 0.80, 0.78])
        for side in (-1, 1):
            x, y = self.head.place(side * 0.40, 0.30)[0].tolist()
            spot = glow(p.u - x, p.v - y, 0.13, 0.10) * self.skin_cover
            p.paint(spot * span(i.blush, 0.05, 0.45), cheek)
            x, y = self.head.place(side * self.head.eye_x, -0.02)[0].tolist()
            p.paint(glow(p.u - x, p.v - y, 0.17, 0.10) * self.skin_cover * 0.28, self.skin * 0.70)

    def _beard(self) -> None:
        h, p, i = self.head, self.face, self.i
        colour = self.hair * 0.80 + self.skin * 0.10
        full = ramp(i.beard, 0.66, 0.78)
        if full > 0:
            x, _ = h.place(0.0, 0.25)[0].tolist()
            low = (
                h.mouth()[0].tolist()[1] + h.aperture * 0.64 + 0.16
            )  # the clear skin ends under the lower lip
            clear = ellipse(p.u - x, p.v - 0.16, h.width * 0.80, low - 0.16)
            edge = p.inside(-clear, 0.025) * p.inside(0.12 - p.v, 0.05) * self.skin_cover
            p.paint(0.93 * full * edge, colour)
        lip = 0.93 * ramp(i.moustache, 0.76, 0.84)
        if lip > 0:
            q = self.patch((-0.45, -0.35, 0.45, 0.3), h.mouth())
            s = q.u / (h.mouth_w * 1.15)
            top, _ = h.outer_lips(np.clip(q.u / h.mouth_w, -1, 1))
            body = np.maximum(1 - s * s, 0) ** 0.6 * 0.075
            d = np.abs(q.v - top + 0.035 - 0.05 * s * s) - body
            q.paint(lip * q.inside(np.maximum(d, np.abs(q.u) - h.mouth_w * 1.15), 0.016), colour)

    def _hair_front(self) -> None:
        """The cap of hair and the strands beside the face, around an opening for the face."""
        h, p, i = self.head, self.face, self.i
        volume = span(i.hair_volume, 0.02, 0.24) * span(ramp(i.hair_line, 0.0, 0.25), 0.25, 1.0)
        length = span(ramp(i.hair_length, 0.3, 1.0), 0.0, 1.0)
        low = np.sin(self.contour_angle)  # 1 at the chin, -1 at the crown
        grown = 1 - ramp(low, span(length, -0.15, 0.65), span(length, 0.2, 0.95))
        radius = (self.contour + volume * grown + 0.012).astype(np.float32)
        cap = p.inside(p.rho - self._polar(p, radius), 0.016)
        # The opening moves with the forehead's surface, so turning uncovers one side.
        x, y = h.project([[0.10 * (i.hair_part - 0.5), 0.0, 0.42]])[0].tolist()
        line = span(ramp(i.hair_line, 0.05, 0.6), -1.02, -0.58)
        u, v = p.u - x, p.v - y - 0.35
        face = ellipse(u, v, h.width * span(length, 0.97, 0.86), 0.35 - line)
        fringe = span(ramp(i.hair_fringe, 0.55, 0.95), -0.95, -0.30)
        slant = 0.5 * (i.hair_part - 0.5) * u
        face = np.maximum(face, fringe + slant - p.v + y + 0.12 * u * u)
        cover = cap * p.inside(-face, 0.02) * p.inside(p.v - span(length, 0.02, 1.1) - y, 0.05)
        sheen = glow(p.u - 0.35 * self.s.light[0], p.v + 0.82, 0.32, 0.13)  # soft, toward the light
        p.paint(cover, self.hair[:, None, None] * (0.92 + 0.35 * sheen))
        self.cover = np.maximum(cover, self.skin_cover)

    def _shade(self) -> None:
        """Soft light on the head, as on an ellipsoid, and the clip's tint on everything."""
        p, (lx, ly, strength) = self.face, self.s.light
        c, s = math.cos(self.s.roll), math.sin(self.s.roll)
        lx, ly = c * lx + s * ly, -s * lx + c * ly  # the light does not roll with the head
        nx, ny = p.u / 0.95, p.v / 1.3
        nz = np.sqrt(np.maximum(1 - nx * nx - ny * ny, 0.04))
        facing = (nx * lx + ny * ly + 0.8 * nz) / math.hypot(lx, ly, 0.8)
        light = 1 + strength * (0.55 * facing - 0.40)
        p.scale(1 + self.cover * (light - 1))
        self.image *= np.asarray(self.s.tint, np.float32)[:, None, None]


def _sorted(angle, radius):
    order = np.argsort(angle)
    return angle[order], radius[order]


def render(identity: Identity, state: State, size: int | tuple[int, int]):
    """One picture and its landmarks: the identity's head in all else of the state.

    size: pixels, a side or (height, width), 32 to 512. Returns (uint8 RGB [h w 3], float32
    [68 2] landmarks (x, y) in pixels with pixel centres at integers, 300-W order). A swap is
    exact: render(source identity, target state). Raises ValueError for a size out of range.
    """
    size = (size, size) if isinstance(size, int | np.integer) else tuple(size)
    if not (32 <= min(size) and max(size) <= 1024):
        raise ValueError(f"synthetic.render: size {size} is out of range; take 32 to 512 px")
    painter = Painter(identity, state, size)
    painter.draw()
    image = np.clip(painter.image * 255 + 0.5, 0, 255).astype(np.uint8).transpose(1, 2, 0)
    landmarks = painter.centre + painter.unit * painter.head.landmarks() @ painter.roll.T
    return np.ascontiguousarray(image), landmarks.astype(np.float32)

"""Proxy swappers: (source face, target face) -> the target with the source's identity.

Their results supervise the swap module (paper eq. 8), and are for that alone. `exact` exists for
the synthetic set only; `classical` works on any pair of aligned faces, without a learned model;
`inswapper` runs the user's own copies of two public networks. All are made by `make`.
"""

import cv2
import numpy as np
from scipy.spatial import Delaunay, QhullError  # scipy comes with jax and librosa

# Inner lips and eyelids, with their upper and lower middle points and their corners.
MOUTH = (range(60, 68), (61, 62, 63), (67, 66, 65), (60, 64))
EYES = (
    (range(36, 42), (37, 38), (41, 40), (36, 39)),
    (range(42, 48), (43, 44), (47, 46), (42, 45)),
)
# Share of the image's side over which the face fades in at its rim.
FEATHER = 0.04
# Grey levels by which the Poisson solution may shift a colour: enough for light from one side, too
# little to spread a dark fringe at the rim over the forehead.
LARGEST_SHIFT = 30


def classical(source, target):
    """Source's skin and features on the target's geometry: pose and expression are the target's.

    Piecewise-affine warp of the source onto the target's landmarks, colours matched in Lab, Poisson
    blending (Perez et al., 2003), or a feathered blend where the face reaches the image's edge. An
    open mouth or eye that the source shows closed stays the target's. Landmarks without extent, of
    a face outside of the image or with NaN give None: the target itself would teach not to swap.
    """
    size = target.image.shape[0]
    scale = size / source.image.shape[0]
    # Pixel centres of two image sizes correspond as (x + 0.5) scale - 0.5.
    ours = (np.asarray(source.landmarks, np.float64) + 0.5) * scale - 0.5
    theirs = np.asarray(target.landmarks, np.float64)
    if not np.isfinite([ours, theirs]).all():
        return None
    try:
        where = _source_of_each_pixel(_with_forehead(ours), _with_forehead(theirs), size)
    except QhullError:  # all on one line
        return None
    hull = np.isfinite(where[..., 0])
    where = (np.nan_to_num(where).clip(-size, 2 * size) + 0.5) / scale - 0.5
    warped = cv2.remap(
        source.image,
        where.astype(np.float32),
        None,
        cv2.INTER_CUBIC,
        borderMode=cv2.BORDER_REFLECT_101,
    )
    mask = _shrunk(hull, theirs)
    if mask.sum() < 16:  # a face of 4 x 4 pixels, or outside of the image
        return None
    core = mask & _core(theirs, size)
    warped = _match_colours(warped, target.image, core if core.any() else mask)
    blended = _blend(warped, target.image, mask)
    for part in (MOUTH, *EYES):
        keep = _kept(part, ours, theirs, size)
        blended = blended + keep * (target.image - blended)
    return np.rint(blended).clip(0, 255).astype(np.uint8)


def _with_forehead(landmarks):
    """landmarks [68 2] -> [78 2]: with a row above the brows, where foreheads are mostly bare."""
    up = landmarks[36:48].mean(0) - landmarks[48:60].mean(0)
    return np.concatenate([landmarks, landmarks[17:27] + 0.2 * up])


def _source_of_each_pixel(ours, theirs, size):
    """Inverse piecewise-affine map: float64 [size size 2], source (x, y) of each target pixel.

    NaN outside of the hull of `theirs`. Raises QhullError for points without area.
    """
    triangles = Delaunay(theirs).simplices
    corners = np.concatenate([theirs[triangles], np.ones((len(triangles), 3, 1))], axis=-1)
    solid = np.abs(np.linalg.det(corners)) > 1e-3  # slivers cover no pixel and have no inverse
    affine = np.linalg.solve(corners[solid], ours[triangles[solid]])
    owner = np.full((size, size), -1, np.int32)
    fixed = _on_canvas(theirs, size, 256)
    for index, triangle in enumerate(triangles[solid]):
        cv2.fillConvexPoly(owner, fixed[triangle], index, cv2.LINE_8, shift=8)
    y, x = np.nonzero(owner >= 0)
    where = np.full((size, size, 2), np.nan)
    pixels = np.column_stack([x, y, np.ones(len(x))])
    where[y, x] = np.einsum("ni,nij->nj", pixels, affine[owner[y, x]])
    return where


def _on_canvas(points, size, unit=1):
    """points as int32 in 1 / unit pixels, clipped: OpenCV's drawing coordinates would overflow."""
    return np.rint(points.clip(-4 * size, 5 * size) * unit).astype(np.int32)


def _shrunk(hull, landmarks):
    """hull bool [s s] without its rim: landmarks err, and beyond the jaw's edge is background."""
    rim = float(np.clip(0.02 * np.ptp(landmarks[:17], axis=0).max(), 1, 0.1 * len(hull)))
    mask = np.pad(hull, 1).astype(np.uint8)
    mask = cv2.erode(mask, np.ones((3, 3), np.uint8), iterations=round(rim))[1:-1, 1:-1]
    return mask.astype(bool)


def _core(landmarks, size):
    """bool [s s]: the hull of nose, eyes and mouth, where no hair hangs into either face."""
    core = np.zeros((size, size), np.uint8)
    hull = cv2.convexHull(_on_canvas(landmarks[27:60], size))
    return cv2.fillConvexPoly(core, hull, 1).astype(bool)


def _match_colours(warped, target, mask):
    """Level and spread of each Lab channel of `warped` under mask made the target's; uint8."""
    lab = cv2.cvtColor(warped, cv2.COLOR_RGB2LAB).astype(np.float32)
    mine, goal = lab[mask], cv2.cvtColor(target, cv2.COLOR_RGB2LAB)[mask]
    # A beard or a shadow widens the spread: beyond these limits the match would copy it, and more
    # chroma turns shaded eyes purple.
    ratio = np.clip((goal.std(0) + 0.5) / (mine.std(0) + 0.5), 0.7, (1.3, 1.0, 1.0))
    # Medians: skin, whatever share brows, lips and teeth have.
    level, goal_level = np.median(mine, axis=0), np.median(goal, axis=0)
    share = np.ones_like(lab)
    # What is darker than skin takes less of the tint: black pupils must not turn blue.
    share[..., 1:] = np.clip(lab[..., :1] / max(level[0], 1), 0, 1)
    lab = level + (lab - level) * ratio + (goal_level - level) * share
    return cv2.cvtColor(np.rint(lab.clip(0, 255)).astype(np.uint8), cv2.COLOR_LAB2RGB)


def _blend(warped, target, mask):
    """warped uint8 under mask into target -> float32 [s s 3], without a visible seam."""
    size = mask.shape[0]
    depth = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 3)[1:-1, 1:-1]
    weight = np.clip(depth / max(2.0, FEATHER * size), 0, 1)[..., None]
    new = np.float32(warped)
    x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
    if min(x, y) > 2 and max(x + width, y + height) < size - 2:
        # Nearer to the border the solver lacks the ring of known pixels; the feather must do.
        centre = (x + width // 2, y + height // 2)
        stencil = mask.astype(np.uint8) * 255
        cloned = cv2.seamlessClone(warped, target, stencil, centre, cv2.NORMAL_CLONE)
        new += np.clip(np.float32(cloned) - new, -LARGEST_SHIFT, LARGEST_SHIFT)
    return target + weight * (new - target)


def _kept(part, ours, theirs, size):
    """Weight [size size 1] of the target's own pixels in its mouth or eye.

    1 where the one face shows it open and the other one closed: then the warp has no pixels for the
    inside, or a row of teeth for a closed mouth.
    """
    ring, upper, lower, corners = part

    def openness(points):
        gap = np.linalg.norm(points[list(upper)] - points[list(lower)], axis=1).mean()
        return gap / max(1e-6, np.linalg.norm(points[corners[0]] - points[corners[1]])) + 1e-6

    need, have = openness(theirs), openness(ours)
    # Gaps in units of the width: an eye has 0.3 open and 0.15 closed, lips 0.05 closed. From 3/4 of
    # the target's opening on, what the source shows can be stretched.
    hidden = np.clip((need - 0.05) / 0.05, 0, 1) * np.clip((0.75 - have / need) / 0.2, 0, 1)
    squeezed = np.clip((0.12 - need) / 0.05, 0, 1) * np.clip((have - 2 * need) / 0.05, 0, 1)
    weight = max(hidden, squeezed)
    inside = np.zeros((size, size), np.uint8)
    if weight > 0:
        cv2.fillPoly(inside, [_on_canvas(theirs[list(ring)], size)], 1)
        reach = 2 * round(0.01 * size) + 1  # a closed mouth is a line, and landmarks err by a pixel
        inside = cv2.dilate(inside, np.ones((reach, reach), np.uint8))
    soft = cv2.GaussianBlur(np.float32(inside), (0, 0), max(0.5, 0.008 * size))
    return weight * soft[..., None]

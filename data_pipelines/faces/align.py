"""FFHQ alignment: landmarks -> similarity matrix -> crop, and the soft way back into the frame.

Pixel centres lie at integers (OpenCV's convention). A similarity matrix, float64 [2 3], maps frame
pixels to crop pixels; `invert` gives the way back.
"""

import functools

import cv2
import numpy as np

# Frames. White noise falls to 1 / sqrt(2 sigma sqrt(pi)) = 38 %; a nod of one second at 25 fps
# keeps exp(-2 (pi sigma / 25)^2) = 88 % of its height, the rest moves within the crop.
SIGMA = 2.0
# Gaps up to this many frames are bridged (0.4 s at 25 fps: a hand before the face).
MAX_GAP = 10
# Samples per crop pixel and side. More buy nothing, and bad landmarks must not cost gigabytes.
MAX_SUPERSAMPLING = 16
# Of `face_mask`: forehead and jaw beyond the landmarks, by their distance from the nose's tip, and
# the width of the soft border by the crop's.
FOREHEAD, JAW, SOFT = 1.2, 0.12, 0.025


def transform(points, matrix):
    """points [... 2] mapped by matrix [2 3] -> float64 [... 2]."""
    matrix = np.asarray(matrix, np.float64)
    return np.asarray(points, np.float64) @ matrix[:, :2].T + matrix[:, 2]


def invert(matrix):
    """Inverse of similarity matrices [... 2 3], as float64 [... 2 3]."""
    matrix = np.asarray(matrix, np.float64)
    linear = np.linalg.inv(matrix[..., :2])
    return np.concatenate([linear, -linear @ matrix[..., 2:]], axis=-1)


def _quad(landmarks):
    """landmarks [t 68 2] -> centre [t 2] and half-side vector [t 2] of FFHQ's quad, pixels."""
    landmarks = np.asarray(landmarks, np.float64)
    left, right = landmarks[:, 36:42].mean(1), landmarks[:, 42:48].mean(1)
    eyes, eye_to_eye = (left + right) / 2, right - left
    eye_to_mouth = (landmarks[:, 48] + landmarks[:, 54]) / 2 - eyes
    x = eye_to_eye - eye_to_mouth[:, ::-1] * [-1, 1]
    half = np.maximum(
        2.0 * np.linalg.norm(eye_to_eye, axis=1), 1.8 * np.linalg.norm(eye_to_mouth, axis=1)
    )
    length = np.linalg.norm(x, axis=1)
    # Eyes and mouth in one point, or cancelling each other: no direction, hence no quad.
    length[length < 1e-6] = np.nan
    return eyes + 0.1 * eye_to_mouth, x * (half / length)[:, None]


def _matrices(centres, x, size):
    """Quads (centres [t 2], half-sides x [t 2]) -> matrices [t 2 3] onto a crop's outer edges."""
    y = x[:, ::-1] * [-1, 1]
    linear = np.stack([x, y], axis=1) * (size / 2 / (x**2).sum(1))[:, None, None]
    # The quad's edges fall on pixel edges, -0.5 and size - 0.5: its centre on size / 2 - 0.5.
    offset = size / 2 - 0.5 - np.einsum("tij,tj->ti", linear, centres)
    return np.concatenate([linear, offset[..., None]], axis=-1)


def similarity(landmarks, size):
    """FFHQ alignment of one face.

    landmarks [68 2] in frame pixels (300-W order); size: side of the crop in pixels.
    Returns float64 [2 3], frame pixels -> crop pixels: the quad of FFHQ's own script, which is a
    similarity.
    Raises ValueError for landmarks without extent or with NaN.
    """
    matrix = _matrices(*_quad(np.asarray(landmarks)[None]), size)[0]
    if not np.isfinite(matrix).all():
        raise ValueError(
            "similarity: the landmarks hold NaN or no extent; leave frames without a face out"
        )
    return matrix


def matrices(landmarks, size, sigma=SIGMA, max_gap=MAX_GAP):
    """FFHQ alignment of a tracked face, smoothed over time so that the crop does not jitter.

    landmarks [t 68 2] in frame pixels, NaN where no face was found; sigma in frames (0: none).
    Centre, log-scale and direction are smoothed each by a Gaussian-weighted line fit, which has no
    lag in linear motion, not even at the ends. Nothing is smoothed across a cut. Gaps of at most
    max_gap frames between two faces of one shot are bridged; other frames without a face stay NaN.
    Returns float64 [t 2 3], frame pixels -> crop pixels.
    """
    state = _state(landmarks)
    state = _steady(state, _shots(state, max_gap), sigma)
    direction = state[:, 3:] / np.linalg.norm(state[:, 3:], axis=1, keepdims=True)
    return _matrices(state[:, :2], direction * np.exp(state[:, 2:3]), size)


def steady(landmarks, sigma=SIGMA, max_gap=MAX_GAP):
    """landmarks [t 68 2] smoothed and bridged as `matrices` does -> float64 [t 68 2], or NaN."""
    flat = np.asarray(landmarks, np.float64).reshape(len(landmarks), -1)
    shots = _shots(_state(landmarks), max_gap)
    return _steady(flat, shots, sigma).reshape(-1, 68, 2)


def _state(landmarks):
    """landmarks [t 68 2] -> [t 5]: the quad's centre, log of its half-side, its direction."""
    centres, x = _quad(landmarks)
    scale = np.linalg.norm(x, axis=1)
    return np.column_stack([centres, np.log(scale), x / scale[:, None]])


def _steady(values, shots, sigma):
    """values [t n], NaN where unknown, bridged and smoothed in each shot; NaN outside of them."""
    result = np.full_like(values, np.nan)
    for first, end in shots:
        known = np.flatnonzero(np.isfinite(values[first:end]).all(1))
        frames = np.arange(end - first)
        columns = [np.interp(frames, known, column[known]) for column in values[first:end].T]
        result[first:end] = _smooth(np.column_stack(columns), sigma)
    return result


def _shots(state, max_gap):
    """Runs [first, end) of frames that show one face without a cut or a long gap; state [t 5]."""
    known = np.flatnonzero(np.isfinite(state).all(1))
    if not len(known):
        return []
    gap = np.diff(known)
    before, after = state[known[:-1]], state[known[1:]]
    # exp(log-scale) is half the crop's side, about one face width: no head moves by half of that or
    # grows by a third within a frame. If it does so over a gap, a bridge would only be a guess.
    jump = np.linalg.norm(after[:, :2] - before[:, :2], axis=1) > 0.5 * np.exp(before[:, 2])
    zoom = np.abs(after[:, 2] - before[:, 2]) > np.log(4 / 3)
    breaks = np.flatnonzero((gap > max_gap + 1) | jump | zoom)
    firsts = known[np.concatenate([[0], breaks + 1])]
    ends = known[np.concatenate([breaks, [len(known) - 1]])] + 1
    return list(zip(firsts, ends, strict=True))


def _smooth(values, sigma):
    """Gaussian-weighted local line fit of values [t n] over time, at each frame (Cleveland, 1979).

    Equals the Gaussian filter in the middle of a run; at its ends it keeps the slope.
    """
    if sigma <= 0 or len(values) < 3:
        return values
    reach = int(np.ceil(3 * sigma))
    lag = np.arange(-reach, reach + 1)
    weight = np.exp(-0.5 * (lag / sigma) ** 2)

    def moments(series, power):  # sum over lags of weight * lag^power * series[frame + lag]
        kernel = (weight * lag**power)[::-1]
        return np.convolve(np.pad(series, reach), kernel, mode="valid")

    s0, s1, s2 = (moments(np.ones(len(values)), power) for power in (0, 1, 2))
    t0, t1 = (np.column_stack([moments(v, power) for v in values.T]) for power in (0, 1))
    return (s2[:, None] * t0 - s1[:, None] * t1) / (s0 * s2 - s1**2)[:, None]


def warp(image, matrix, shape):
    """image uint8 [h w] or [h w 3] seen through matrix float64 [2 3] -> [*shape] or [*shape 3].

    Shrinking averages over the area of each pixel, growing is cubic; beyond the edges it mirrors.
    """
    scale = np.sqrt(abs(np.linalg.det(matrix[:, :2])))
    k = int(np.clip(np.ceil(1 / scale - 1e-6), 1, MAX_SUPERSAMPLING))
    # k samples per output pixel and side: pixel centre u goes to (u + 0.5) k - 0.5.
    fine = matrix * k
    fine[:, 2] += (k - 1) / 2
    big = cv2.warpAffine(
        image,
        fine,
        (shape[1] * k, shape[0] * k),
        flags=cv2.INTER_CUBIC,
        borderMode=cv2.BORDER_REFLECT_101,  # a face at the frame's edge must not get a black wedge
    )
    return big if k == 1 else cv2.resize(big, shape[::-1], interpolation=cv2.INTER_AREA)


def crop(image, matrix, size):
    """Aligned crop: image uint8 [h w 3], matrix [2 3] frame -> crop pixels -> uint8 [size size 3].

    Shrinking averages over each crop pixel's area, growing is cubic; beyond the frame's edges the
    image is mirrored.
    """
    return warp(image, np.array(matrix, np.float64), (size, size))


@functools.cache
def soft_mask(size):
    """Weight of the face in an FFHQ crop: float32 [size size] in 0..1, 0 at the edges, read-only.

    1 over brows, eyes, cheeks and mouth; falls smoothly to 0 toward all sides. In 47 real clips and
    portraits the face lay at 0.22..0.77 of the width, brows at 0.38 and chin at 0.93 of the height.
    """
    at = (np.arange(size) + 0.5) / size
    # A superellipse of power 4 keeps the jaw's corners that an ellipse would cut.
    x, y = np.abs(at - 0.5) / 0.49, np.abs(at - 0.55) / 0.44
    radius = (x[None, :] ** 4 + y[:, None] ** 4) ** 0.25
    ramp = np.clip((1 - radius) / 0.2, 0, 1)
    mask = (ramp * ramp * (3 - 2 * ramp)).astype(np.float32)
    mask.setflags(write=False)
    return mask


def face_mask(points, size):
    """Weight of the inner face in a crop of `size` pixels: float32 [size size] in 0..1.

    points [68 2] in crop pixels. 1 from above the brows to below the chin, soft outside of that:
    hair and background stay the frame's own. The forehead is an arch over the brows; below the chin
    there is room for a jaw that opens.
    """
    points = np.asarray(points, np.float64)
    brows, tip, jaw = points[17:27], points[33], points[:17]
    arch = 0.4 + 0.6 * np.sin(np.linspace(0, np.pi, 10))[:, None]
    forehead = brows + FOREHEAD * arch * (brows.mean(0) - tip)
    chin = jaw + JAW * np.sin(np.linspace(0, np.pi, 17))[:, None] * (jaw[8] - tip)
    hull = cv2.convexHull(np.concatenate([forehead, chin]).astype(np.float32))
    mask = np.zeros((size, size), np.float32)
    fraction = 4  # bits of a pixel
    corners = np.rint(hull * 2**fraction).astype(np.int32)
    cv2.fillConvexPoly(mask, corners, 1.0, cv2.LINE_AA, fraction)
    soft = cv2.GaussianBlur(mask, (0, 0), SOFT * size, borderType=cv2.BORDER_CONSTANT)
    return np.minimum(np.clip(2 * soft, 0, 1), soft_mask(size))


def mouth_area(height, width):
    """Share of each cell of a grid over an FFHQ crop where a speaking mouth may be: float32 [h w].

    FFHQ alignment puts the mouth's middle at 0.75 of the height. 90 % of `mouth_box` lay within
    0.58..0.94 of the height and 0.27..0.73 of the width (11,200 crops of the synthetic set).
    """
    fine = 16
    x, y = ((np.arange(n * fine) + 0.5) / (n * fine) for n in (width, height))
    inside = (np.abs(y - 0.76) < 0.18)[:, None] & (np.abs(x - 0.5) < 0.23)[None]
    return inside.reshape(height, fine, width, fine).mean((1, 3), dtype=np.float32)


def paste(image, face, matrix, mask=None):
    """Put an aligned face back into its frame.

    image uint8 [h w 3]; face uint8 [s s 3]; matrix [2 3], frame pixels -> pixels of that crop;
    mask float [s s] in 0..1 (default soft_mask). Returns uint8 [h w 3], a copy; pixels where the
    mask is 0, and all outside of the crop, are bit-identical to the input.
    """
    size = face.shape[0]
    mask = soft_mask(size) if mask is None else np.asarray(mask, np.float32)
    result = image.copy()
    unit = np.array([[0, 0], [1, 0], [1, 1], [0, 1]])
    corners = transform(unit * size - 0.5, invert(matrix))
    x0, y0 = np.maximum(np.floor(corners.min(0)), 0).astype(int)
    x1, y1 = np.minimum(np.ceil(corners.max(0)) + 1, (image.shape[1], image.shape[0])).astype(int)
    if x0 >= x1 or y0 >= y1:
        return result
    back = invert(matrix)
    back[:, 2] -= (x0, y0)
    box = (y1 - y0, x1 - x0)
    weight = cv2.warpAffine(mask, back, box[::-1], flags=cv2.INTER_LINEAR)[..., None]
    old = image[y0:y1, x0:x1].astype(np.float32)
    new = warp(face, back, box).astype(np.float32)
    result[y0:y1, x0:x1] = np.rint(old + weight * (new - old)).astype(np.uint8)
    return result


def mouth_box(landmarks, size, margin=0.3):
    """Box around the mouth: landmarks [68 2] in crop pixels -> half-open ints (y0, x0, y1, x1).

    Points 48-67, widened on every side by `margin` of the mouth's width (a jaw that drops takes
    the lip with it), clipped to the crop of side `size`, never empty.
    """
    mouth = np.asarray(landmarks, np.float64)[48:68]
    low, high = mouth.min(0), mouth.max(0)
    grow = margin * (high[0] - low[0])
    x0, y0 = np.clip(np.floor(low - grow), 0, size - 1).astype(int).tolist()
    x1, y1 = np.clip(np.ceil(high + grow) + 1, (x0 + 1, y0 + 1), size).astype(int).tolist()
    return y0, x0, y1, x1

"""Whether a clip is good enough to train on: what is measured, and from where on it is refused.

Every threshold was set on the 98 real clips that the project is tested with (all good), on photos
of what must be refused, and on occluders and blur put upon real clips; see Gates.
"""

import dataclasses

import cv2
import numpy as np

from data_pipelines.faces import align
from data_pipelines.rates import SAMPLE_RATE

# Reasons, and what they mean to a person who reads the page of a build.
MISSING, UNREADABLE, NO_SOUND, SILENT = "missing", "unreadable", "no_sound", "silent"
CUT_SOUND, NO_FACE, TOO_SHORT, SMALL_FACE = "cut_sound", "no_face", "too_short", "small_face"
PROFILE, SEVERAL_FACES, BLURRED = "profile", "several_faces", "blurred"
MOUTH_HIDDEN, OFFSET_UNSURE = "mouth_hidden", "offset_unsure"
REASONS = {
    MISSING: "The file is not there; it was not downloaded, or lies elsewhere.",
    UNREADABLE: "The file is damaged, cut off, or neither a video nor a picture.",
    NO_SOUND: "The file has no sound track, so there is no speech to learn from.",
    SILENT: "Nothing, or hardly anything, is heard while the face is shown.",
    CUT_SOUND: "The sound starts late, ends early or breaks off while the picture goes on.",
    NO_FACE: "No face was found in any frame.",
    TOO_SHORT: "The face is shown for too few frames in a row.",
    SMALL_FACE: "The face has too few pixels for the crop.",
    PROFILE: "The head is turned so far that half of the mouth is not seen.",
    SEVERAL_FACES: "Another face of similar size is in the picture, so who speaks is not known.",
    BLURRED: "The face is out of focus or shaken.",
    MOUTH_HIDDEN: "Something covers the mouth, so its landmarks are guesses.",
    OFFSET_UNSURE: "By how much sound and picture are apart could not be told.",
}


@dataclasses.dataclass(frozen=True)
class Gates:
    """From where on a clip is refused.

    In brackets the 98 real clips: lowest, median and highest.
    """

    # Pixels: the crop shows about twice the face's width. [107, 122, 267]
    face: float = 64.0
    # Degrees of |yaw|: the far corner of the mouth goes out of sight. [1, 5, 15]
    yaw: float = 30.0
    # Share of frames in which another face is at least half as large. [0, 0, 0]
    company: float = 0.1
    # See `sharpness`. [0.28, 0.40, 0.47]; blurred by 3 % of the face's width at most 0.25.
    sharpness: float = 0.26
    # See `mouth`. [0.70, 1, 1], single frames from 0.63 on. Drawn over the mouth of 294 frames, a
    # hand is below in 99 %, a mask in all, a microphone in 87 %, a patch of another picture in 82.
    mouth: float = 0.6
    # dBFS, RMS over the clip. [-28, -19, -14]
    loudness: float = -50.0
    # Share of frames louder than that. [0.7, 0.99, 1]
    heard: float = 0.2
    # Seconds of digital silence at a stretch: a pause in speech has noise in it. [0, 0.01, 0.01]
    silence: float = 0.5


# Judging -----------------------------------------------------------------------------------------


def refusal(measures, gates, exact=False):
    """-> (reason, one line of detail) of the first gate that a clip does not pass, or None.

    measures: any of those below; gates of missing ones are passed. exact: of the embedded set,
    whose faces are drawn: only its sound is judged.
    """
    g, most = gates, np.inf
    sound = (
        (SILENT, "loudness", g.loudness, most, "{:.0f} dBFS"),
        (SILENT, "heard", g.heard, most, "heard in a share of {:.2f} of the frames"),
        (CUT_SOUND, "silence", 0.0, g.silence, "{:.1f} s of digital silence"),
    )
    picture = (
        (SEVERAL_FACES, "faces", 0.0, g.company, "another face in a share of {:.2f} of the frames"),
        (SMALL_FACE, "face", g.face, most, "a face of {:.0f} pixels"),
        (PROFILE, "yaw", -g.yaw, g.yaw, "turned by {:.0f} degrees"),
        (BLURRED, "sharpness", g.sharpness, most, "sharpness {:.2f}"),
        (MOUTH_HIDDEN, "mouth", g.mouth, most, "visibility {:.2f}"),
    )
    for reason, name, low, high, said in sound if exact else sound + picture:
        value = measures.get(name, low)
        if not low <= value <= high:
            limit = low if value < low else high
            return reason, f"{said.format(value)}; the limit is {limit:g}"
    return None


def of_landmarks(points, company):
    """Measures of a clip's landmarks [t 68 2] in frame pixels: face (median width, pixels), yaw,
    pitch, roll (medians, degrees), and faces: the share `company` of frames with another face."""
    yaw, pitch, roll = np.median(pose(points), axis=0)
    face = np.median(np.ptp(points, axis=1).max(-1))
    return {"face": face, "yaw": yaw, "pitch": pitch, "roll": roll, "faces": company}


def of_sound(samples):
    """Measures of a clip's sound, int16 [640 t] at 25 fps: loudness (dBFS, RMS), heard (share of
    frames above -50 dBFS), silence (seconds of the longest run of zeros)."""
    frames = samples.reshape(-1, 640).astype(np.float64) / 32768
    power = np.square(frames).mean(1)
    # Codecs leave a bit or two of what was digital silence.
    quiet = np.diff(np.concatenate([[0], np.abs(samples.astype(np.int32)) <= 2, [0]]))
    runs = np.flatnonzero(quiet < 0) - np.flatnonzero(quiet > 0)
    return {
        "loudness": 10 * np.log10(power.mean() + 1e-12),
        "heard": float((power > 1e-5).mean()),
        "silence": runs.max(initial=0) / SAMPLE_RATE,
    }


def of_pixels(frame, points):
    """Measures of one frame uint8 [h w 3] and its landmarks [68 2]: sharpness, mouth and light.

    All are taken from an aligned crop of one size, so a face's number of pixels matters only where
    it is enlarged.
    """
    matrix = align.similarity(points, SIDE)
    gray = cv2.cvtColor(align.crop(frame, matrix, SIDE), cv2.COLOR_RGB2GRAY).astype(np.float32)
    inside = align.transform(points, matrix)
    return {
        "sharpness": sharpness(gray),
        "mouth": mouth(gray, inside),
        "light": light(gray, inside),
    }


def over_time(seen):
    """Measures of a clip from those of some of its frames (dicts of `of_pixels`)."""
    return {
        "sharpness": np.median([s["sharpness"] for s in seen]),
        # A hand that passes is learned too: a quarter of the frames may be worse than this.
        "mouth": np.quantile([s["mouth"] for s in seen], 0.25),
        "light": np.median([s["light"] for s in seen], axis=0),
    }


def rounded(measures):
    """Of the measures that are known those that a build keeps, as numbers that JSON can hold."""
    names = ("face", "yaw", "pitch", "roll", "sharpness", "loudness", "faces", "mouth")
    kept = {name: round(float(measures[name]), 3) for name in names if name in measures}
    light = [round(float(x), 3) for x in measures.get("light", ())]
    return kept | ({"light": light} if light else {})


# Pixels ------------------------------------------------------------------------------------------

SIDE = 128  # pixels of the FFHQ crop that is measured; the face is about half as wide
_CENTRE = np.s_[38:120, 28:100]  # brows to chin, cheek to cheek


def sharpness(gray):
    """Grey FFHQ crop float32 [128 128] -> 0 (blurred) ... about 0.5 (sharp).

    The share of the gradient that is lost by blurring once more: little, where it was blurred
    before (the idea of Crete et al., The Blur Effect, 2007; Gaussian of 2 pixels).
    """
    blurred = cv2.GaussianBlur(gray, (0, 0), 2)
    lost = _gradient(blurred[_CENTRE]) / max(_gradient(gray[_CENTRE]), 1e-6)
    return float(np.clip(1 - lost, 0, 1))


def _gradient(gray):
    return float(np.hypot(cv2.Sobel(gray, -1, 1, 0), cv2.Sobel(gray, -1, 0, 1)).mean())


def mouth(gray, points):
    """Visibility of the mouth: grey FFHQ crop [128 128], its landmarks [68 2] -> 0 ... 1.

    Lips, their shadow and teeth are horizontal edges, more than twice as strong as in the rest of
    the face whatever its colour; cloth, hands and microphones have few where dlib guesses the
    mouth to be. A cover with strong edges of its own (a pattern, spread fingers) may pass.
    """
    edges = np.abs(cv2.Sobel(gray, -1, 0, 1))
    face = _mean(edges, np.concatenate([points[0:17], points[26:16:-1]]))
    return float(min(_mean(edges, points[48:60]) / (face + 1) / 2, 1.0))


def light(gray, points):
    """[luma 0..1, left - right, top - bottom] of the face; differences as shares of the luma."""
    left = _mean(gray, points[[0, 2, 4, 6, 8, 33, 27, 21, 17]])
    right = _mean(gray, points[[16, 14, 12, 10, 8, 33, 27, 22, 26]])
    top = _mean(gray, points[[0, 17, 19, 24, 26, 16, 14, 30, 2]])
    bottom = _mean(gray, points[[2, 4, 6, 8, 10, 12, 14, 30]])
    luma = max((left + right) / 2, 1.0)
    return [luma / 255, (left - right) / luma, (top - bottom) / luma]


def _mean(values, corners):
    """Mean of values [h w] inside of a polygon [n 2]."""
    mask = np.zeros(values.shape, np.uint8)
    cv2.fillPoly(mask, [np.round(corners).astype(np.int32)], 1)
    return float(values[mask > 0].mean()) if mask.any() else 0.0


# Pose --------------------------------------------------------------------------------------------

# Points that speech and the brows move little, and where they lie in an adult's head: millimetres
# to the image's right, down, and toward the viewer from the root of the nose. An estimate: a head
# fitted to the real clips would change yaw by a seventh.
_RIGID = [27, 28, 29, 30, 31, 33, 35, 36, 39, 42, 45, 48, 54]
_HEAD = np.array(
    [
        *[[0, 0, 4], [0, 9, 9], [0, 18, 16], [0, 27, 23]],  # bridge of the nose to its tip
        *[[-12, 36, 6], [0, 38, 10], [12, 36, 6]],  # nostrils
        *[[-45, 1, -14], [-16, 2, -4], [16, 2, -4], [45, 1, -14]],  # corners of the eyes
        *[[-25, 62, -2], [25, 62, -2]],  # corners of the mouth
    ],
    np.float64,
)


def pose(landmarks):
    """landmarks [... 68 2] -> float64 [... 3]: yaw, pitch and roll in degrees.

    Yaw is positive where the face turns to the image's right, pitch where it looks down, roll
    where it leans clockwise. A scaled orthographic view of a mean head is fitted to 13 points, so
    no focal length is needed. Signs are sure, the scale is an estimate. NaN in, NaN out.
    """
    points = np.asarray(landmarks, np.float64)[..., _RIGID, :]
    points = points - points.mean(-2, keepdims=True)
    head = _HEAD - _HEAD.mean(0)
    view = np.swapaxes(points, -1, -2) @ head @ np.linalg.inv(head.T @ head)  # [... 2 3]
    known = np.isfinite(view).all((-1, -2), keepdims=True)
    u, _, v = np.linalg.svd(np.where(known, view, np.eye(2, 3)), full_matrices=False)
    right, down = np.moveaxis(u @ v, -2, 0)
    toward = np.cross(right, down)
    pitch = np.arcsin(np.clip(-toward[..., 1], -1, 1))
    yaw = np.arctan2(-toward[..., 0], toward[..., 2])
    zero = np.zeros_like(yaw)
    # The picture's axes of a head with this yaw and pitch that does not lean.
    level = np.stack([np.cos(yaw), zero, np.sin(yaw)], -1)
    upright = [-np.sin(pitch) * np.sin(yaw), np.cos(pitch), np.sin(pitch) * np.cos(yaw)]
    upright = np.stack(upright, -1)
    roll = np.arctan2(-(right * upright).sum(-1), (right * level).sum(-1))
    return np.where(known[..., 0], np.degrees(np.stack([yaw, pitch, roll], -1)), np.nan)

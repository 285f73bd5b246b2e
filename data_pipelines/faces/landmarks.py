"""68 facial landmarks (300-W order) of the faces of a video or still, with a cache of them."""

import dataclasses
import functools
import hashlib
import logging
import zipfile
from fractions import Fraction
from pathlib import Path

import numpy as np

from data_pipelines import files
from data_pipelines.faces import tracks
from data_pipelines.faces.landmarker import Landmarker
from data_pipelines.media import read_picture, read_video

log = logging.getLogger(__name__)

# Of the landmark files in a cache; a change of the tracker makes them anew.
VERSION = 2


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

    One row per frame of read_video.read_frames(path, fps); see tracks.main_face, and tracks_of for
    where they come from and what is raised.
    """
    return tracks.main_face(tracks_of(path, cache_dir, fps))


def tracks_of(path, cache_dir=None, fps=None, start=Fraction(0), end=None, region=None):
    """All faces of a video -> tracks.Found; frame 0 is the first one after `start`.

    path, fps, start and end are those of read_video.read_frames. region: (x, y, width, height) in
    pixels of the upright picture, outside of which no face is looked for.

    `<stem>.landmarks.npz` beside the video is taken as its single track when it is there (the
    synthetic set has exact ones), speaks of the same frame rate and the whole video is asked for;
    else the tracks in cache_dir; else they are detected, and saved in cache_dir when one is
    given. The cache is keyed on the arguments and the file's name, size and time of change;
    stale and broken entries are made again, with a line in the log. Raises opening.MediaError for
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
    detect = functools.partial(_detected, path, fps, start, end, region)
    return _cached(path, cache_dir, span, detect)


def faces_of(path, cache_dir=None, region=None):
    """All faces of a still picture -> tracks.Found of one frame, a track a face, largest first.

    region, cache_dir and `<stem>.landmarks.npz` as in tracks_of. Raises opening.MediaError for an
    unreadable picture, ExtraError without the extra `media`.
    """
    path = Path(path)
    exact = exact_landmarks(path) if region is None else None
    if exact is not None:
        seen = [face for face in exact if np.isfinite(face).all()]
        return tracks.Found(1, (), tuple(tracks.Track(0, face[None]) for face in seen))
    return _cached(path, cache_dir, f"still {region}", functools.partial(_found, path, region))


def _found(path, region):
    """The faces of a still, looked for."""
    part, x0, y0 = read_picture.read_picture(path), 0, 0
    if region is not None:
        x, y, width, height = region
        x0, y0 = max(x, 0), max(y, 0)
        part = part[y0 : y + height, x0 : x + width]
    faces = _landmarker()(part) if part.size else []
    moved = (face + np.float32([x0, y0]) for face in faces)
    return tracks.Found(1, (), tuple(tracks.Track(0, face[None]) for face in moved))


def _cached(path, cache_dir, span, detect):
    """What detect() finds of a file's span, from the cache where it stands there."""
    if cache_dir is None:
        return detect()
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
    found = detect()
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

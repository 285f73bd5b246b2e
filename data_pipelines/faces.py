"""The work of one build process: a video -> aligned face crops and sound.

Everything here is a function of its arguments, so the shards do not depend on the number of
processes.
"""

import dataclasses
import pathlib
import signal
from fractions import Fraction

import cv2
import numpy as np

from data_pipelines import align, audio, landmarks, records, sources, video

FPS, RATE = 25, 16000
SAMPLES = RATE // FPS  # of sound per frame
SHORTEST = 15  # frames; three windows of the sync expert
JUMP, ZOOM = 0.5, 4 / 3  # of the crop's half side, between two frames: another shot

# What a file that is broken in a way that nobody foresaw raises; a bug raises something else.
_BROKEN = (ValueError, OSError, RuntimeError, ArithmeticError, LookupError, cv2.error)


class Refused(ValueError):
    """Why a video is not taken; the build goes on without it."""


@dataclasses.dataclass(frozen=True)
class Job:
    """One video, and how to cut it."""

    video: sources.Video
    size: int  # side of the crops in pixels
    longest: int  # frames of a clip; 0: not cut
    cache: pathlib.Path  # of detected landmarks
    scratch: pathlib.Path  # where the clips are left for the writer


def start_worker():
    """One thread per process, and Ctrl-C is for the parent alone."""
    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def clips(number: int, job: Job) -> tuple[list[pathlib.Path], str | None]:
    """The clips of a video as files in `job.scratch` (see `load`), or why there are none.

    One bad video must not end a long build; a missing installation or a bug of ours must.
    """
    try:
        return list(_clips(number, job)), None
    except (Refused, video.MediaError) as error:
        return [], " ".join(str(error).split())
    except _BROKEN as error:
        return [], f"{job.video.path}: unexpected {type(error).__name__}: {error}".split("\n")[0]


def load(path: pathlib.Path) -> dict:
    """A clip: name, first (frame of the video at 25 fps), images (list of encoded bytes),
    landmarks float32 [t 68 2] in crop pixels, matrices float32 [t 2 3], audio int16 [640 t]."""
    with np.load(path, allow_pickle=False) as data:
        clip = dict(data)
    packed = clip.pop("packed").tobytes()
    ends = clip.pop("ends").tolist()
    clip["images"] = [packed[a:b] for a, b in zip([0, *ends], ends, strict=False)]
    clip["name"], clip["first"] = str(clip["name"]), int(clip["first"])
    return clip


def _clips(number, job):
    path = job.video.path
    if not video.probe(path).has_audio:
        raise Refused(f"{path}: has no sound; lip-sync needs it, so leave the video out")
    sound, _ = audio.read_audio(path, rate=RATE)
    if not len(sound) or not np.abs(sound).max() > 0:
        raise Refused(f"{path}: its sound is silence; lip-sync needs speech, so leave it out")
    points = landmarks.landmarks_of(path, job.cache, fps=Fraction(FPS))
    # A mouth that moves while the sound has already ended would teach silence.
    points = points[: -(-len(sound) // SAMPLES)]
    matrices = align.matrices(points, job.size)
    first, end = _longest_run(matrices, job.size)
    if end - first < SHORTEST:
        found = int(np.isfinite(points[:, 0, 0]).sum())
        seen = f"in {found} of {len(points)} frames, at most {end - first} in a row"
        raise Refused(
            f"{path}: a face was found {seen}; at least {SHORTEST} are needed"
            if found
            else f"{path}: no face was found in its {len(points)} frames"
        )
    points = mapped(_bridged(points[first:end]), matrices[first:end])
    yield from _cut(number, job, first, points, matrices[first:end], sound)


def _longest_run(matrices, size):
    """[first, end) of the longest run of frames with a face, without a cut to another shot."""
    known = np.flatnonzero(np.isfinite(matrices).all(axis=(1, 2)))
    if not len(known):
        return 0, 0
    back = align.invert(matrices[known])
    centre = back @ [size / 2 - 0.5, size / 2 - 0.5, 1]
    half = np.linalg.norm(back[:, 0, :2], axis=1) * size / 2
    moved = np.linalg.norm(np.diff(centre, axis=0), axis=1) / half[:-1]
    zoomed = np.abs(np.diff(np.log(half)))
    breaks = np.flatnonzero((np.diff(known) > 1) | (moved > JUMP) | (zoomed > np.log(ZOOM)))
    firsts = known[np.concatenate([[0], breaks + 1])]
    ends = known[np.concatenate([breaks, [len(known) - 1]])] + 1
    best = int(np.argmax(ends - firsts))
    return int(firsts[best]), int(ends[best])


def mapped(points, matrices):
    """points [t n 2] by matrices [t 2 3] -> float32 [t n 2]."""
    moved = np.einsum("tij,tnj->tni", matrices[:, :, :2], points) + matrices[:, None, :, 2]
    return moved.astype(np.float32)


def _bridged(points):
    """points [t 68 2] with the frames without a face interpolated, as their matrices are."""
    known = np.flatnonzero(np.isfinite(points[:, 0, 0]))
    flat = points.reshape(len(points), -1)
    rows = [np.interp(np.arange(len(points)), known, column[known]) for column in flat.T]
    return np.stack(rows, axis=1).reshape(points.shape)


def _cut(number, job, first, points, matrices, sound):
    """Reads the frames once more and leaves clips of at most `job.longest` frames behind."""
    longest = job.longest or len(points)
    images, frames = [], video.read_frames(job.video.path, Fraction(FPS))
    pieces = -(-len(points) // longest)
    for i, frame in enumerate(frames):
        k = i - first
        if k < 0:
            continue
        images.append(records.encode_image(align.crop(frame, matrices[k], job.size)))
        if len(images) == longest or k == len(points) - 1:
            a, b = k + 1 - len(images), k + 1
            if len(images) >= SHORTEST:
                name = job.video.name + (f"#{a // longest}" if pieces > 1 else "")
                path = job.scratch / f"{number:06d}-{a // longest:04d}.npz"
                cut = _sound(sound, first + a, first + b)
                _save(path, name, first + a, images, points[a:b], matrices[a:b], cut)
                yield path
            images = []
        if k == len(points) - 1:
            break
    frames.close()


def _sound(sound, first, end):
    """int16 [640 (end - first)] of float32 [n]; the last frame's missing samples are silence."""
    part = sound[first * SAMPLES : end * SAMPLES]
    part = np.pad(part, (0, (end - first) * SAMPLES - len(part)))
    return np.round(np.clip(part, -1, 1) * 32767).astype(np.int16)


def _save(path, name, first, images, points, matrices, sound):
    np.savez(
        path,
        name=np.array(name),
        first=first,
        packed=np.frombuffer(b"".join(images), np.uint8),
        ends=np.cumsum([len(image) for image in images]),
        landmarks=points.astype(np.float32),
        matrices=matrices.astype(np.float32),
        audio=sound,
    )

"""One video with another face and other words, frame by frame."""

import itertools
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from data_pipelines.faces import align, landmarks
from data_pipelines.media import audio, read_video, tokens, write_video
from data_pipelines.media.opening import MediaError
from swaptalk_jax.inference.mark import MARK
from swaptalk_jax.inference.source import check_drawn, source_face
from swaptalk_jax.inference.swaptalk import Rules, SwapTalk
from swaptalk_jax.weights.bundle import DRAWN

REPORT_EVERY = 2.0  # seconds between two lines of progress


@dataclass(frozen=True)
class Result:
    """What `infer` made: frames in all, those that were left as they were, and the rule."""

    frames: int
    without_face: int
    fps: Fraction
    mode: str  # "self" or "cross"


def infer(
    pipe: SwapTalk,
    source: str | os.PathLike,
    target: str | os.PathLike,
    out: str | os.PathLike,
    sound: str | os.PathLike | None = None,
    mode: str = "auto",
    rules: Rules | None = None,
    report: Callable[[str], object] = print,
    any_face: bool = False,
) -> Result:
    """Writes `out` (.mp4) and returns a Result.

    pipe: swaptalk.SwapTalk. source: image or video; its first face is taken. target: video; its
    largest face is changed. sound: any file with sound; None takes the target's own.
    mode: which lips are changed (paper III-C). "self": those of the first swapped frame, "cross":
    those of each swapped frame itself; "auto" is self where the target keeps its own sound.
    rules: swaptalk.Rules; None takes the bundle's. report: takes lines of progress.
    any_face: also faces that the bundle cannot know, as it was trained on drawn ones alone.

    Landmarks are taken from `<stem>.landmarks.npz` beside an input, else found; those of the target
    are kept beside `out`. Nothing is written beside the inputs, and `out` is written whole or not
    at all. Raises MediaError (one line) and, without the extra `media`, ExtraError.
    """
    source, target, out = Path(source), Path(target), Path(out)
    sound = target if sound is None else Path(sound)
    _check_out(out, (source, target, sound))
    if pipe.config.get("faces") == DRAWN and not any_face:
        check_drawn((source, target))
    mode = ("self" if sound == target else "cross") if mode == "auto" else mode
    fps = read_video.probe(target).fps
    samples, rate, features = read_sound(sound, target, pipe.features)
    source_z = pipe.encode(source_face(source, pipe.size)[None])[0]

    points = landmarks.landmarks_of(target, out.parent, fps)
    matrices = align.matrices(points, pipe.size)
    faces = np.isfinite(matrices).all((1, 2))
    if not faces.any():
        raise MediaError(f"{target}: no face was found in its {len(points)} frames; give another")
    frames = min(len(points), frames_of_sound(len(samples), rate, fps))
    _check_length(frames, len(points), sound, report)
    rules = pipe.rules if rules is None else rules
    edited = edit(
        pipe,
        _exactly(read_video.read_frames(target, fps), frames, len(points), target),
        matrices,
        align.steady(points),
        source_z,
        lambda first, count: tokens.context_windows(
            features, fps, count, pipe.audio["context"], first
        ),
        own_reference=mode == "cross",
        warp=rules.warps(own_reference=mode == "cross"),
        quantize=rules.quantize,
    )
    # The sound keeps its rate and channels, and ends with the last frame.
    cut = samples[: round(frames / fps * rate)]
    written = write_video.write_video(out, _told(edited, frames, report), fps, (cut, rate), MARK)
    return Result(written, int((~faces[:written]).sum()), fps, mode)


def edit(
    pipe: SwapTalk,
    frames: Iterable[np.ndarray],
    matrices: np.ndarray,
    points: np.ndarray,
    source: np.ndarray,
    sound: Callable[[int, int], np.ndarray],
    own_reference: bool,
    warp: bool,
    quantize: bool,
) -> Iterator[np.ndarray]:
    """Yields the frames with the face swapped and in sync, in order; others as they are.

    frames: iterator of uint8 [h w 3]; matrices [t 2 3], frame -> crop pixels, NaN without a face;
    points [t 68 2]: the landmarks in frame pixels, which tell how far a face reaches; source:
    z [h w d]; sound(first, count) -> context windows of these frames. own_reference: each frame's
    own lips are changed, else those of the first face.
    """
    first, reference = 0, None
    while chunk := list(itertools.islice(frames, pipe.batch_size)):
        here = matrices[first : first + len(chunk)]
        rows = np.flatnonzero(np.isfinite(here).all((1, 2)))
        if len(rows):
            crops = np.stack([align.crop(chunk[i], here[i], pipe.size) for i in rows])
            z = pipe.swap(source, pipe.encode(crops), quantize)
            reference = z[0] if reference is None else reference
            windows = sound(first, len(chunk))[rows]
            z = pipe.sync(z, z if own_reference else reference, windows, warp)
            for i, face in zip(rows, pipe.decode(z), strict=True):
                mask = align.face_mask(align.transform(points[first + i], here[i]), pipe.size)
                chunk[i] = align.paste(chunk[i], face, here[i], mask)
        yield from chunk
        first += len(chunk)


def read_sound(
    path: Path, target: Path, features: Callable[[np.ndarray], np.ndarray]
) -> tuple[np.ndarray, int, np.ndarray]:
    """(samples float32 [n c] at the file's own rate, that rate, features [t d] at 50 Hz)."""
    try:
        samples, rate = audio.read_audio(path, rate=None, mono=False)
    except MediaError as error:
        if path == target and not read_video.probe(target).has_audio:
            raise MediaError(f"{target}: has no sound; give some with --audio") from error
        raise
    return samples, rate, features(audio.read_audio(path)[0])


def frames_of_sound(samples: int, rate: int, fps: Fraction) -> int:
    """Number of frames for which there is sound for at least half of the frame's time."""
    return int(Fraction(samples, rate) * fps + Fraction(1, 2))


def _check_length(frames, known, sound, report):
    """Refuses a sound of no frame; tells where it lasts for fewer than the target's `known`."""
    if not frames:
        raise MediaError(f"{sound}: its sound lasts less than one frame; give a longer one")
    if frames < known:
        report(f"the target has {known} frames, the sound lasts for {frames} of them")


def _check_out(out, inputs):
    """Refuses what could not be written, before the long work."""
    if out.suffix.lower() != ".mp4" or out.is_dir():
        raise MediaError(f"{out}: cannot be written; give a file name that ends in .mp4")
    if out.resolve() in [path.resolve() for path in inputs]:
        raise MediaError(f"{out}: is also an input, which would be lost; give --out another name")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out.parent):
            pass
    except OSError as error:
        raise MediaError(f"{out}: cannot be written ({error.strerror})") from error


def _exactly(frames, count, known, path):
    """The first `count` frames. MediaError where landmarks were `known` for another video."""
    for _ in range(count):
        frame = next(frames, None)
        if frame is None:
            break
        yield frame
    else:
        if count < known or next(frames, None) is None:
            return
    raise MediaError(
        f"{path.with_suffix('.landmarks.npz')}: speaks of {known} frames, but {path.name} has "
        "another number; delete it"
    )


def _told(frames, total, report):
    """The frames, with a line every few seconds: how many, how fast, how long still.

    The clock starts with the first frame, so that compilation is no part of the speed.
    """
    began = told = None
    for done, frame in enumerate(frames):
        now = time.monotonic()
        if done == 0:
            report(f"the first of {total} frames is made")
            began = told = now
        if now - told > REPORT_EVERY:
            told = now
            left = int((now - began) / done * (total - done))
            rate = done / (now - began)
            report(f"{done}/{total} frames  {rate:.1f} a second  {left // 60}:{left % 60:02} left")
        yield frame

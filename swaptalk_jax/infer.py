"""One video with another face and other words.

    python -m swaptalk_jax.infer --bundle=BUNDLE --source=face.jpg --target=clip.mp4 \
        --audio=speech.wav --out=out.mp4

The face of --source (a portrait or a clip) is put on the face of --target, which then speaks the
sound of --audio, or its own. Frame i of the output is frame i of the target; all outside of the
face, and frames without one, stay as they are. Memory does not grow with the length of the video.
"""

import itertools
import tempfile
import time
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
from absl import app, flags

from data_pipelines import align, audio, landmarks, video, video_writer
from data_pipelines.media import MediaError
from swaptalk_jax import checkpoints, pipeline, progress

# What the file says of itself, in the container's metadata.
MARK = {
    "title": "AI-generated video",
    "comment": "AI-generated: face and lips were synthesised by SwapTalk in JAX",
    "digital_source_type": "http://cv.iptc.org/newscodes/digitalsourcetype/"
    "compositeWithTrainedAlgorithmicMedia",
}
REPORT_EVERY = 2.0  # seconds between two lines of progress


@dataclass(frozen=True)
class Result:
    """What `infer` made: frames in all, those that were left as they were, and the rule."""

    frames: int
    without_face: int
    fps: Fraction
    mode: str  # "self" or "cross"


def infer(
    pipe, source, target, out, sound=None, mode="auto", warp="auto", quantize=True, report=print
):
    """Writes `out` (.mp4) and returns a Result.

    pipe: pipeline.SwapTalk. source: image or video; its first face is taken. target: video; its
    largest face is changed. sound: any file with sound; None takes the target's own.
    mode: which lips are changed (paper III-C). "self": those of the first swapped frame, "cross":
    those of each swapped frame itself; "auto" is self where the target keeps its own sound.
    warp: "auto" moves the reference's lips to the frame's pose where the two differ (self), as in
    training; "never" takes them as they stand (the paper's rule).
    quantize: see SwapTalk.swap. report: takes lines of progress.

    Landmarks are taken from `<stem>.landmarks.npz` beside an input, else found; those of the target
    are kept beside `out`. Nothing is written beside the inputs, and `out` is written whole or not
    at all. Raises MediaError (one line) and, without the extra `media`, ImportError.
    """
    source, target, out = Path(source), Path(target), Path(out)
    sound = target if sound is None else Path(sound)
    _check_out(out, (source, target, sound))
    mode = ("self" if sound == target else "cross") if mode == "auto" else mode
    fps = video.probe(target).fps
    samples, rate, features = read_sound(sound, target, pipe.features)
    source_z = pipe.encode(source_face(source, pipe.size)[None])[0]

    points = landmarks.landmarks_of(target, out.parent, fps)
    matrices = align.matrices(points, pipe.size)
    faces = np.isfinite(matrices).all((1, 2))
    if not faces.any():
        raise MediaError(f"{target}: no face was found in its {len(points)} frames; give another")
    frames = min(len(points), frames_of_sound(len(samples), rate, fps))
    if not frames:
        raise MediaError(f"{sound}: its sound lasts less than one frame; give a longer one")
    if frames < len(points):
        report(f"the target has {len(points)} frames, the sound lasts for {frames} of them")

    edited = edit(
        pipe,
        _exactly(video.read_frames(target, fps), frames, len(points), target),
        matrices,
        source_z,
        lambda first, count: audio.context_windows(
            features, fps, count, pipe.audio["context"], first
        ),
        own_reference=mode == "cross",
        warp=warp == "auto" and mode == "self",
        quantize=quantize,
    )
    # The sound keeps its rate and channels, and ends with the last frame.
    cut = samples[: round(frames / fps * rate)]
    written = video_writer.write_video(out, _told(edited, frames, report), fps, (cut, rate), MARK)
    return Result(written, int((~faces[:written]).sum()), fps, mode)


def edit(pipe, frames, matrices, source, sound, own_reference, warp, quantize):
    """Yields the frames with the face swapped and in sync, in order; others as they are.

    frames: iterator of uint8 [h w 3]; matrices [t 2 3], frame -> crop pixels, NaN without a face;
    source: z [h w d]; sound(first, count) -> context windows of these frames. own_reference: each
    frame's own lips are changed, else those of the first face.
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
                chunk[i] = align.paste(chunk[i], face, here[i])
        yield from chunk
        first += len(chunk)


def source_face(path, size):
    """The first face of an image or video, aligned: uint8 [size size 3]. Raises MediaError."""
    path = Path(path)
    beside = path.with_suffix(".landmarks.npz")
    try:
        known = landmarks.load_landmarks(beside) if beside.is_file() else None
    except ValueError as error:
        raise MediaError(str(error)) from error
    find = landmarks.Landmarker() if known is None else None
    for i, image in enumerate(_pictures(path)):
        faces = find(image) if find else known[i : i + 1]
        if len(faces) and np.isfinite(faces[0]).all():
            return align.crop(image, align.similarity(faces[0], size), size)
    raise MediaError(f"{path}: no face was found in it; give a sharp, frontal, well-lit one")


def read_sound(path, target, features):
    """(samples float32 [n c] at the file's own rate, that rate, features [t d] at 50 Hz)."""
    try:
        samples, rate = audio.read_audio(path, rate=None, mono=False)
    except MediaError as error:
        if path == target and not video.probe(target).has_audio:
            raise MediaError(f"{target}: has no sound; give some with --audio") from error
        raise
    return samples, rate, features(audio.read_audio(path)[0])


def frames_of_sound(samples, rate, fps):
    """Number of frames for which there is sound for at least half of the frame's time."""
    return int(Fraction(samples, rate) * fps + Fraction(1, 2))


def _pictures(path):
    """The upright picture of an image file, or the frames of a video: uint8 [h w 3]."""
    if not (path.is_file() and cv2.haveImageReader(str(path))):
        yield from video.read_frames(path)
        return
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)  # turned as its EXIF orientation says
    if image is None:
        raise MediaError(f"{path}: is a damaged image; save it again")
    yield cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


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
        began, told = (now, now) if done == 0 else (began, told)
        if now - told > REPORT_EVERY:
            told = now
            left = int((now - began) / done * (total - done))
            rate = done / (now - began)
            report(f"{done}/{total} frames  {rate:.1f} a second  {left // 60}:{left % 60:02} left")
        yield frame


def main(_):
    """Command line."""
    progress.quiet()
    c = flags.FLAGS

    def report(line):
        print(f"[infer] {line}", flush=True)

    try:
        pipe = pipeline.SwapTalk(c.bundle, c.batch_size)
        made = infer(pipe, c.source, c.target, c.out, c.audio, c.mode, c.warp, c.quantize, report)
    except (checkpoints.CheckpointError, MediaError, ImportError) as error:
        raise SystemExit(f"[infer] {error}") from error
    except KeyboardInterrupt:
        report("stopped; nothing was written")
        raise SystemExit(130) from None
    seconds = float(made.frames / made.fps)
    report(f"{c.out}: {made.frames} frames at {float(made.fps):.5g} fps ({seconds:.2f} s)")
    if made.without_face:
        report(f"{made.without_face} frames show no face and were left as they are")
    report("marked as AI-generated in its metadata; show it only with the consent of those in it")


if __name__ == "__main__":
    flags.DEFINE_string("bundle", None, "Folder that swaptalk_jax.export wrote.")
    flags.DEFINE_string("source", None, "Whose face: an image or a video.")
    flags.DEFINE_string("target", None, "The video to change, of any size and frame rate.")
    flags.DEFINE_string("audio", None, "What is said: any file with sound; default: the target's.")
    flags.DEFINE_string("out", None, "The .mp4 to write.")
    flags.DEFINE_enum("mode", "auto", ["auto", "self", "cross"], "Lips of the first or each frame.")
    flags.DEFINE_enum("warp", "auto", ["auto", "never"], "never: the paper's rule.")
    flags.DEFINE_bool("quantize", True, "Put the swapped face on codes before its lips are made.")
    flags.DEFINE_integer("batch_size", 16, "Frames that are worked on at once.", lower_bound=1)
    flags.mark_flags_as_required(["bundle", "source", "target", "out"])
    app.run(main)

"""Video files, read: frames upright, in time and without combing, streamed (PyAV)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from data_pipelines.media import pixels
from data_pipelines.media.deinterlace import deinterlaced
from data_pipelines.media.opening import MediaError, open_media, pictures_of, video_stream

# Rates outside are artefacts of a container's clock (90000) or of a missing one (0).
FPS_RANGE = (1, 240)
# A larger step between two timestamps is a broken clock, not a pause; it would be filled in RAM.
LARGEST_GAP = 600  # seconds
# Formats whose index leads to a keyframe and whose frames carry their own times. The others' (MPEG
# streams, AVI, FLV) are guessed by their demuxers after a seek, so they are decoded from the front.
SEEKABLE = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")
# Seconds before `start` at which decoding begins: after a keyframe that isn't the stream's first,
# frames that refer to what is before it are missing, and deinterlacing looks one frame back.
LEAD = Fraction(1)


@dataclass(frozen=True)
class VideoInfo:
    """What a video file declares, as `read_frames` delivers it (upright, square pixels)."""

    path: Path
    width: int
    height: int
    fps: Fraction  # exact; the average rate where the source's rate varies
    frames: int | None  # exact for MP4/MOV, else duration x fps; None where neither is known
    duration: float  # seconds of picture; 0.0 where unknown
    rotation: int  # degrees, counter-clockwise, by which the stored picture is turned
    has_audio: bool
    metadata: dict[str, str]  # what the container says of itself


def probe(path: str | Path) -> VideoInfo:
    """Reads the headers and the first frame of a video.

    Raises MediaError where `read_frames` would do so at its first frame.
    """
    with open_media(path) as container:
        stream = video_stream(container, path)
        first = next(_decoded(container, stream, path))
        image = pixels.rgb(first, pixels.stored_size(stream), VideoReformatter())
        height, width = pixels.upright(image, pixels.turning(first)).shape[:2]
        fps = _rate(stream, path)
        frames, duration = _length(container, stream, fps)
        return VideoInfo(
            path=Path(path),
            width=width,
            height=height,
            fps=fps,
            frames=frames,
            duration=duration,
            rotation=first.rotation % 360,
            has_audio=bool(container.streams.audio),
            metadata=dict(container.metadata),
        )


def read_frames(
    path: str | Path,
    fps: Fraction | None = None,
    start: Fraction = Fraction(0),
    end: Fraction | None = None,
) -> Iterator[np.ndarray]:
    """Streams the frames of a video: uint8 [h w 3] RGB, upright, square pixels, presentation order.

    fps=None gives the source's own frames. With fps, frame k is the one shown start + k/fps after
    the first, so sources of varying rate, lost frames and rate changes stay in step with the sound.
    start and end are seconds after the first frame; frames from `start` on and before `end` are
    given, the same as those of the whole video (none where it ends before `start`), but what is
    before is passed over quickly. Interlaced frames are deinterlaced (FFmpeg's bwdif), one for one.
    Memory does not grow with the length; closing the iterator closes the file.

    Raises MediaError, at the first frame where possible: missing, empty, not a video, without
    a picture, cut off, damaged; a rate or an interval that cannot be.
    """
    if fps is not None and fps <= 0:
        raise MediaError(f"{path}: cannot be read at {fps} frames per second; give a positive rate")
    if start < 0 or (end is not None and end <= start):
        raise MediaError(
            f"{path}: cannot be read from {start} s to {end} s; let the end come later"
        )
    if start > LEAD:
        with open_media(path) as container:
            stream = video_stream(container, path)
            found = _sought(container, stream, path, start)
            if found is not None:
                yield from _shown(*found, stream, path, fps, start, end)
                return
    with open_media(path) as container:
        stream = video_stream(container, path)
        frames = _decoded(container, stream, path)
        yield from _shown(frames, None, stream, path, fps, start, end)


def first_frame_time(path: str | Path) -> Fraction | None:
    """When the first frame is shown on the file's clock, in seconds; None without a picture."""
    with open_media(path) as container:
        if not pictures_of(container):
            return None
        first = next(_decoded(container, video_stream(container, path), path))
        return Fraction(0) if first.pts is None else first.pts * first.time_base


def _shown(frames, origin, stream, path, fps, start, end) -> Iterator[np.ndarray]:
    """Decoded frames -> those that `read_frames` gives; `origin` as in `_timed`."""
    size, scaler, rate = pixels.stored_size(stream), VideoReformatter(), _rate(stream, path)
    timed = _timed(deinterlaced(frames), origin, rate)
    if fps is None:
        chosen = _own(timed, rate, start, end)
    else:
        chosen = _sampled(timed, Fraction(fps), start, end, path)
    turning = None
    for i, frame in enumerate(chosen):
        if i == 0:
            # Of the first frame only, since it holds for the file: PyAV's side data are cycles, of
            # which thousands would wait for the garbage collector.
            turning = pixels.turning(frame)
        yield pixels.upright(pixels.rgb(frame, size, scaler), turning)


def _sought(container, stream, path, start):
    """(frames from a keyframe before `start` on, the time of the very first), or None where only
    decoding from the front is sure to give the same frames."""
    if container.format.name not in SEEKABLE:
        return None
    first = next(_decoded(container, stream, path))
    if first.pts is None:
        return None
    origin = first.pts * first.time_base
    try:
        container.seek(int((origin + start - LEAD) / stream.time_base), stream=stream)
        frames = _decoded(container, stream, path)
        # Frames in front of the keyframe refer to what the seek has passed over.
        key = next((frame for frame in frames if frame.key_frame), None)
    except (av.error.FFmpegError, MediaError):
        return None
    if key is None or key.pts is None or key.pts * key.time_base - origin > start - LEAD / 2:
        return None
    return itertools.chain([key], frames), origin


def _decoded(container, stream, path) -> Iterator[av.VideoFrame]:
    """All frames from here on. Raises MediaError on damage and on a file that is cut."""
    last, end = None, Fraction(0)
    try:
        # Sound is demuxed too, only to see how far the file reaches.
        for packet in container.demux(stream, *container.streams.audio):
            if packet.pts is not None:
                end = max(end, (packet.pts + (packet.duration or 0)) * packet.time_base)
            if packet.stream is not stream:
                continue
            for frame in stream.decode(packet):
                last = frame
                yield frame
    except av.error.FFmpegError as error:
        where = "from its first frame on" if last is None else f"after {last.time or 0:.1f} s"
        raise MediaError(
            f"{path}: is damaged {where} ({error.strerror}); convert it again from its source"
        ) from error
    if last is None:
        raise MediaError(f"{path}: holds no frame that can be decoded; convert it to H.264")
    declared = _declared_end(container, stream)
    if declared is not None and end < declared - 1:
        raise MediaError(
            f"{path}: is cut off: it ends at {float(end):.1f} of {float(declared):.1f} s; "
            "copy or download it again"
        )


def _declared_end(container, stream) -> Fraction | None:
    """The time, in seconds, up to which a header promises data; None where it only estimates."""
    if container.format.name in ("matroska,webm", "flv") and container.duration:
        return Fraction(container.duration + (container.start_time or 0), av.time_base)
    if container.format.name == "avi" and stream.frames and stream.average_rate:
        return stream.frames / stream.average_rate
    return None


def _timed(frames, origin: Fraction | None, rate: Fraction) -> Iterator[tuple]:
    """(seconds after the first frame, seconds that it is shown, frame); origin: the first frame's
    time on the file's clock, None where it is the first of these."""
    time, step = None, 1 / rate
    for frame in frames:
        stamp = None if frame.pts is None else frame.pts * frame.time_base
        if time is None:
            origin = (stamp or Fraction(0)) if origin is None else origin
            time = (stamp or origin) - origin
        else:
            time = time + step if stamp is None else stamp - origin
        step = frame.duration * frame.time_base if frame.duration else 1 / rate
        yield time, step, frame


def _own(timed, rate: Fraction, start: Fraction, end: Fraction | None) -> Iterator[av.VideoFrame]:
    """The frames of an interval, an eighth of a frame early as in `_sampled`."""
    early = 1 / (8 * rate)
    for time, _, frame in timed:
        if end is not None and time >= end - early:
            return
        if time >= start - early or start == 0:
            yield frame


def _sampled(timed, fps: Fraction, start: Fraction, end: Fraction | None, path):
    """Repeats and drops frames so that item k is the one shown start + k/fps after the first.

    A frame counts as shown an eighth of an output frame early: rounded or jittering timestamps
    (Matroska's are whole milliseconds) would otherwise repeat one frame and lose the next.
    """
    early = 1 / (8 * fps)
    held, previous, ends, wanted = None, None, None, Fraction(start)
    for time, shown, frame in timed:
        if previous is not None and not -1 < time - previous < LARGEST_GAP:
            raise MediaError(
                f"{path}: its clock jumps by {float(time - previous):.0f} s at "
                f"{float(previous):.1f} s; convert it again from its source"
            )
        while held is not None and wanted < time - early:
            if end is not None and wanted >= end:
                return
            yield held
            wanted += 1 / fps
        held, previous, ends = frame, time, time + shown
    while wanted == 0 or wanted < ends - early:
        if end is not None and wanted >= end:
            return
        yield held
        wanted += 1 / fps


def _rate(stream, path) -> Fraction:
    for rate in (stream.average_rate, stream.guessed_rate, stream.base_rate):
        if rate and FPS_RANGE[0] <= rate <= FPS_RANGE[1]:
            return Fraction(rate)
    raise MediaError(
        f"{path}: has no usable frame rate ({stream.average_rate}); convert it at a fixed one"
    )


def _length(container, stream, fps: Fraction) -> tuple[int | None, float]:
    """Frames that will be shown, and seconds of picture, both as far as the headers tell."""
    duration = Fraction(0)
    if stream.duration:
        duration = stream.duration * stream.time_base
    elif container.duration:
        duration = Fraction(container.duration, av.time_base)
    if "mov" in container.format.name and len(stream.index_entries):
        shown = sum(not entry.is_discard for entry in stream.index_entries)
        return shown, float(duration or shown / fps)
    return int(duration * fps + Fraction(1, 2)) or None, float(duration)  # half up

"""Video files: frames in, upright and in time; frames out, a whole file or none (PyAV)."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import av.logging
import numpy as np
from av.sidedata.sidedata import Type as SideData
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

# FFmpeg's own lines ("moov atom not found", x264's statistics) would bury our one clear line. None
# is also the only level without deadlocks: any other makes decoder threads wait for the GIL, which
# a closing container holds while it waits for them.
av.logging.set_level(None)

# What people have, and nothing that opens other files or addresses (playlists, concat scripts):
# a web page may hand us any upload.
DEMUXERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,flv,mpeg,mpegts,mpegvideo,asf,ogg,gif,mxf,nut,dv,"
    "h264,hevc,m4v,ivf,wav,w64,flac,mp3,aac,aiff,au,amr,caf,ac3"
)
# Rates outside are artefacts of a container's clock (90000) or of a missing one (0).
FPS_RANGE = (1, 240)
# A larger step between two timestamps is a broken clock, not a pause; it would be filled in RAM.
LARGEST_GAP = 600  # seconds
# Rates that AAC has a table entry for; anything else is stored at 48 kHz.
AAC_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000)
LAYOUTS = {1: "mono", 2: "stereo", 3: "3.0", 4: "4.0", 5: "5.0", 6: "5.1", 8: "7.1"}
# Without both flags FFmpeg's RGB <-> YUV conversion darkens a picture by 1 to 2 levels, each time.
SCALING = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT


class MediaError(ValueError):
    """A media file cannot be read or written: one line with the file, what is wrong, what to do."""


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


def probe(path: str | Path) -> VideoInfo:
    """Reads the headers and the first frame of a video.

    Raises MediaError where `read_frames` would do so at its first frame.
    """
    with open_media(path) as container:
        stream = video_stream(container, path)
        first = next(_decoded(container, stream, path))
        height, width = _rgb(first, _stored_size(stream), VideoReformatter()).shape[:2]
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
        )


def read_frames(path: str | Path, fps: Fraction | None = None) -> Iterator[np.ndarray]:
    """Streams the frames of a video: uint8 [h w 3] RGB, upright, square pixels, presentation order.

    fps=None gives the source's own frames. With fps, frame k is the one shown k/fps after the
    first, so sources of varying rate, lost frames and rate changes stay in step with the sound.
    Memory does not grow with the length; closing the iterator closes the file.

    Raises MediaError, at the first frame where possible: missing, empty, not a video, without
    a picture, cut off, damaged.
    """
    if fps is not None and fps <= 0:
        raise MediaError(f"{path}: cannot be read at {fps} frames per second; give a positive rate")
    with open_media(path) as container:
        stream = video_stream(container, path)
        size, scaler = _stored_size(stream), VideoReformatter()
        frames = _decoded(container, stream, path)
        if fps is not None:
            frames = _sampled(frames, Fraction(fps), _rate(stream, path), path)
        for frame in frames:
            yield _rgb(frame, size, scaler)


def first_frame_time(path: str | Path) -> Fraction | None:
    """When the first frame is shown on the file's clock, in seconds; None without a picture."""
    with open_media(path) as container:
        if not _pictures(container):
            return None
        first = next(_decoded(container, video_stream(container, path), path))
        return Fraction(0) if first.pts is None else first.pts * first.time_base


def write_video(
    path: str | Path,
    frames: Iterable[np.ndarray],
    fps: Fraction,
    audio: tuple[np.ndarray, int] | None = None,
    metadata: dict[str, str] | None = None,
    crf: int = 18,
) -> int:
    """Writes H.264 (yuv420p, BT.709) and AAC into an .mp4 and returns the number of frames.

    frames  uint8 [h w 3] RGB, all of one size, taken one at a time. H.264 4:2:0 knows even sizes
            only: an odd one is stored with its last row or column repeated.
    fps     exact; frame k is shown at k/fps
    audio   (float32 [n] or [n c] in [-1, 1], rate in Hz); starts with the first frame, may be
            longer or shorter than the picture, and keeps its channels and its rate (rates
            that AAC lacks become 48 kHz)
    metadata  keys and values for the container; any key is kept

    The file is made under a temporary name in the same folder, created if need be, and then moved:
    `path` holds the whole file or what it held before. Raises MediaError for input that cannot
    be encoded; an exception of `frames` passes through.
    """
    path = Path(path)
    fps = Fraction(fps).limit_denominator(2**23)  # times 240 still fits FFmpeg's 32 bits
    if path.suffix.lower() != ".mp4" or path.is_dir():
        raise MediaError(
            f"{path}: cannot be written as a video; give a file name that ends in .mp4"
        )
    if not FPS_RANGE[0] <= fps <= FPS_RANGE[1]:
        raise MediaError(
            f"{path}: cannot be written at {float(fps):g} frames per second (1 to 240)"
        )
    sound = None if audio is None else _checked_sound(path, *audio)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # A folder, not a file: mkstemp's file would keep its 0600 mode after the move.
        scratch = tempfile.TemporaryDirectory(prefix=".writing-", dir=path.parent)
    except OSError as error:
        raise MediaError(f"{path}: its folder cannot be written to ({error.strerror})") from error
    with scratch as folder:
        partial = Path(folder) / "partial.mp4"
        try:
            count = _encode(partial, path, frames, fps, sound, metadata or {}, crf)
        except av.error.FFmpegError as error:
            raise MediaError(f"{path}: could not be written ({error.strerror})") from error
        os.replace(partial, path)
    return count


# Opening -----------------------------------------------------------------------------------------


@contextmanager
def open_media(path: str | Path) -> Iterator[av.container.InputContainer]:
    """Opens a media file for reading; closes it on leaving. Raises MediaError (also: cut off)."""
    path = Path(path)
    if not path.is_file():
        found = "is a folder, not a file" if path.is_dir() else "does not exist"
        raise MediaError(f"{path}: {found}; give the path of a media file")
    if path.stat().st_size == 0:
        raise MediaError(f"{path}: is empty (0 bytes); copy or record it again")
    try:
        container = av.open(
            f"file:{path}",  # so that a colon in a name is not taken for a protocol
            options={"protocol_whitelist": "file", "format_whitelist": DEMUXERS},
            metadata_errors="replace",
        )
    except PermissionError as error:
        raise MediaError(f"{path}: may not be read; change its permissions") from error
    except (av.error.FFmpegError, OSError) as error:
        raise MediaError(
            f"{path}: is not a video or sound file, or is cut off before its index; "
            "check it in a player or download it again"
        ) from error
    with container:
        _check_whole(container, path)
        yield container


def video_stream(container, path: str | Path):
    """The first stream of moving pictures. Raises MediaError where there is none."""
    pictures = _pictures(container)
    if not pictures:
        raise MediaError(f"{path}: has no picture, only sound; give a video")
    stream = pictures[0]
    if stream.codec_context is None or not stream.codec_context.width:
        raise MediaError(f"{path}: its picture cannot be decoded; convert it to H.264")
    stream.thread_type = "AUTO"
    return stream


def _check_whole(container, path: Path) -> None:
    """Raises MediaError where an MP4/MOV index points past the end of the file.

    The index stands in front in a "faststart" file, so a broken download opens without complaint.
    """
    if "mov" not in container.format.name:
        return
    size = path.stat().st_size
    for stream in (*container.streams.video, *container.streams.audio):
        entries = stream.index_entries
        whole = sum(entry.pos + entry.size <= size for entry in entries)
        if whole < len(entries):
            kind = "frames" if stream.type == "video" else "packets of sound"
            raise MediaError(
                f"{path}: is cut off: only {whole} of {len(entries)} {kind} are in the file; "
                "copy or download it again"
            )


def _pictures(container) -> list:
    """Video streams without cover art, which a music file carries as a one-frame video."""
    cover = av.stream.Disposition.attached_pic
    return [s for s in container.streams.video if not s.disposition & cover]


# Reading -----------------------------------------------------------------------------------------


def _decoded(container, stream, path) -> Iterator[av.VideoFrame]:
    """All frames of a stream. Raises MediaError on damage and on a file that is cut."""
    count, end = 0, Fraction(0)
    try:
        # Sound is demuxed too, only to see how far the file reaches.
        for packet in container.demux(stream, *container.streams.audio):
            if packet.pts is not None:
                end = max(end, (packet.pts + (packet.duration or 0)) * packet.time_base)
            if packet.stream is not stream:
                continue
            for frame in stream.decode(packet):
                count += 1
                yield frame
    except av.error.FFmpegError as error:
        raise MediaError(
            f"{path}: is damaged after {count} frames ({error.strerror}); "
            "convert it again from its source"
        ) from error
    if count == 0:
        raise MediaError(f"{path}: holds no frame that can be decoded; convert it to H.264")
    declared = _declared_end(container, stream)
    if declared is not None and end < declared - 1:
        raise MediaError(
            f"{path}: is cut off: it ends after {count} frames, at {float(end):.1f} of "
            f"{float(declared):.1f} s; copy or download it again"
        )


def _declared_end(container, stream) -> Fraction | None:
    """The time, in seconds, up to which a header promises data; None where it only estimates."""
    if container.format.name in ("matroska,webm", "flv") and container.duration:
        return Fraction(container.duration + (container.start_time or 0), av.time_base)
    if container.format.name == "avi" and stream.frames and stream.average_rate:
        return stream.frames / stream.average_rate
    return None


def _sampled(frames, fps: Fraction, rate: Fraction, path) -> Iterator[av.VideoFrame]:
    """Repeats and drops frames so that item k is the one shown at k/fps after the first.

    A frame counts as shown an eighth of an output frame early: rounded or jittering timestamps
    (Matroska's are whole milliseconds) would otherwise repeat one frame and lose the next.
    """
    early = 1 / (8 * fps)
    held, origin, time, k = None, None, Fraction(0), 0
    step = 1 / rate
    for frame in frames:
        stamp = None if frame.pts is None else frame.pts * frame.time_base
        if held is None:
            origin = stamp or Fraction(0)
        previous, time = time, (time + step if stamp is None else stamp - origin)
        if held is None:
            time = Fraction(0)
        elif not -1 < time - previous < LARGEST_GAP:
            raise MediaError(
                f"{path}: its clock jumps by {float(time - previous):.0f} s at "
                f"{float(previous):.1f} s; convert it again from its source"
            )
        while held is not None and k / fps < time - early:
            yield held
            k += 1
        held = frame
        step = frame.duration * frame.time_base if frame.duration else 1 / rate
    while k == 0 or k / fps < time + step - early:
        yield held
        k += 1


def _rgb(frame: av.VideoFrame, size: tuple[int, int], scaler: VideoReformatter) -> np.ndarray:
    """Decoded frame -> uint8 [h w 3], upright; `size` is (width, height) before turning.

    Untagged pictures are read like players do: BT.709 from 720 lines on, else BT.601. The scaler is
    kept for a whole file, because setting one up takes longer than using it.
    """
    colorspace = None
    if frame.colorspace in (0, 2, 3):  # RGB, unspecified, reserved
        large = frame.width >= 1280 or frame.height > 576
        colorspace = Colorspace.ITU709 if large else Colorspace.ITU601
    image = scaler.reformat(
        frame,
        width=size[0],
        height=size[1],
        format="rgb24",
        src_colorspace=colorspace,
        dst_color_range=ColorRange.JPEG,
        interpolation=SCALING,
        threads=1,
    )
    return _upright(image.to_ndarray(), frame)


def _upright(image: np.ndarray, frame: av.VideoFrame) -> np.ndarray:
    """Applies the display matrix: (x, y) -> (a x + c y, b x + d y), quarter turns and mirrors."""
    matrix = frame.side_data.get(SideData.DISPLAYMATRIX)
    if matrix is None:
        return image
    (a, b), (c, d) = np.frombuffer(matrix, np.int32).reshape(3, 3)[:2, :2].tolist()
    if abs(b) > abs(a):
        image, a, d = image.swapaxes(0, 1), c, b
    image = image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
    return np.ascontiguousarray(image)


def _stored_size(stream) -> tuple[int, int]:
    """(width, height) in square pixels, before any turning."""
    context = stream.codec_context
    aspect = stream.sample_aspect_ratio
    if not aspect or not Fraction(1, 4) < aspect < 4:
        aspect = Fraction(1)
    return round(context.width * aspect), context.height


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


# Writing -----------------------------------------------------------------------------------------


def _checked_sound(path: Path, samples: np.ndarray, rate: int) -> tuple[np.ndarray, int] | None:
    """Sound as finite float32 [c n] in [-1, 1]; None where there is not one sample."""
    samples = np.asarray(samples)
    channels = samples.shape[1] if samples.ndim == 2 else 1
    if samples.ndim not in (1, 2) or samples.dtype.kind != "f" or channels not in LAYOUTS:
        raise MediaError(
            f"{path}: sound must be floats of shape [n] or [n c] with 1 to 6 or 8 channels, "
            f"not {samples.dtype} {list(samples.shape)}"
        )
    if not 1 <= rate <= 768000:
        raise MediaError(f"{path}: {rate} Hz is not a rate of sound")
    if not len(samples):
        return None
    return samples.reshape(len(samples), channels).T, int(rate)


def _encode(partial, path, frames, fps, sound, metadata, crf) -> int:
    """Encodes picture and sound side by side, so that neither has to be held back in RAM."""
    frames = iter(frames)
    first = next(frames, None)
    if first is None:
        raise MediaError(f"{path}: there is no frame to write")
    _even(first, np.shape(first), 0, path)
    movflags = {"movflags": "+faststart+use_metadata_tags"}
    with av.open(f"file:{partial}", "w", format="mp4", container_options=movflags) as container:
        container.metadata.update({str(k): str(v) for k, v in metadata.items()})
        picture = _add_picture(container, first, fps, crf)
        packets = iter(()) if sound is None else _sound_packets(container, *sound)
        sound_end, count, frame, scaler = Fraction(0), 0, first, VideoReformatter()
        while frame is not None:
            image = _even(frame, np.shape(first), count, path)
            container.mux(picture.encode(_yuv(image, scaler, fps, count)))
            count += 1
            while sound_end is not None and sound_end < count / fps:
                sound_end, packet = next(packets, (None, None))
                container.mux(packet or [])
            frame = next(frames, None)
        container.mux(picture.encode(None))
        for _, packet in packets:
            container.mux(packet)
    return count


def _add_picture(container, first: np.ndarray, fps: Fraction, crf: int):
    # FFmpeg averages 2x2 pixels into one of chroma; untagged, that is read half a pixel off.
    options = {"crf": str(crf), "chroma_sample_location": "center"}
    stream = container.add_stream("libx264", rate=fps, options=options)
    height, width = first.shape[:2]
    stream.width, stream.height, stream.pix_fmt = width + width % 2, height + height % 2, "yuv420p"
    context = stream.codec_context
    context.time_base = 1 / fps
    # 1 = BT.709 in all three tables (H.273); limited range
    context.colorspace = context.color_primaries = context.color_trc = 1
    context.color_range = ColorRange.MPEG
    return stream


def _even(image, shape: tuple, index: int, path: Path) -> np.ndarray:
    """Checks a frame against the first one's shape; repeats the last row or column of odd sizes."""
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.shape != shape or shape[2:] != (3,) or not image.size:
        raise MediaError(
            f"{path}: frame {index} is {image.dtype} {list(image.shape)}; "
            f"all must be uint8 {[*shape[:2], 3]}"
        )
    height, width = shape[:2]
    if height % 2 or width % 2:
        image = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), "edge")
    return np.ascontiguousarray(image)


def _yuv(image: np.ndarray, scaler: VideoReformatter, fps: Fraction, index: int) -> av.VideoFrame:
    """uint8 [h w 3] -> yuv420p frame, shown at index/fps."""
    frame = scaler.reformat(
        av.VideoFrame.from_ndarray(image, "rgb24"),
        format="yuv420p",
        dst_colorspace=Colorspace.ITU709,
        dst_color_range=ColorRange.MPEG,
        interpolation=SCALING,
        threads=1,
    )
    frame.pts, frame.time_base = index, 1 / fps
    return frame


def _sound_packets(container, samples: np.ndarray, rate: int):
    """Adds a sound stream; yields (time up to which it is encoded, packets) a second at a time."""
    stored = rate if rate in AAC_RATES else 48000
    layout = LAYOUTS[len(samples)]
    stream = container.add_stream("aac", rate=stored, layout=layout)
    stream.bit_rate = 96_000 * len(samples)
    return _encoded_sound(stream, samples, rate, layout)


def _encoded_sound(stream, samples: np.ndarray, rate: int, layout: str):
    for start in range(0, samples.shape[1], rate):
        block = np.nan_to_num(samples[:, start : start + rate].astype(np.float32))
        block = np.ascontiguousarray(np.clip(block, -1, 1))
        frame = av.AudioFrame.from_ndarray(block, "fltp", layout)
        frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
        yield Fraction(start + block.shape[1], rate), stream.encode(frame)
    yield Fraction(samples.shape[1], rate), stream.encode(None)

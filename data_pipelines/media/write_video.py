"""Video files: frames and sound out, a whole file or none (PyAV)."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

from data_pipelines.media.opening import MediaError
from data_pipelines.media.pixels import SCALING
from data_pipelines.media.read_video import FPS_RANGE

# Rates that AAC has a table entry for; anything else is stored at 48 kHz.
AAC_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000)
LAYOUTS = {1: "mono", 2: "stereo", 3: "3.0", 4: "4.0", 5: "5.0", 6: "5.1", 8: "7.1"}


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

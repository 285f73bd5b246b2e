"""Sound: read from any file in step with its picture, turned into features at 50 tokens a second.

Every feature gives one token per 320 samples at 16 kHz, so a frame of a 25-fps video spans the two
tokens 2i and 2i + 1.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from data_pipelines.media.opening import MediaError, open_media
from data_pipelines.media.read_video import LARGEST_GAP, first_frame_time
from data_pipelines.rates import SAMPLE_RATE

# Packets lost or clocks that drift show as a step of the timestamps; smaller ones are rounding.
STEP = Fraction(1, 50)  # seconds, half a frame at 25 fps
MIX = {"rematrix_maxval": "1.0"}


def read_audio(
    path: str | Path,
    rate: int | None = SAMPLE_RATE,
    mono: bool = True,
    start: Fraction = Fraction(0),
    end: Fraction | None = None,
) -> tuple[np.ndarray, int]:
    """Reads the first sound track of any media file -> (float32 [n] or [n c], rate in Hz).

    Sample 0 is heard when the first frame of the picture is shown: sound that starts earlier is
    cut, sound that starts later is led in with silence, and so are gaps. Without a picture the
    first sample is the first that there is. rate=None keeps the file's rate, mono=False its
    channels (c may be 1). Values are in [-1, 1], but lossy codecs and resampling
    overshoot a little.

    start and end, in seconds, give samples [round(start * rate), round(end * rate)) of the whole,
    bit for bit, in step with `read_frames`; fewer, or none, where the sound ends before. All sound
    up to `end` is decoded, because codecs remember (AAC even seeds its noise), but not kept.

    Raises MediaError: no such file, no sound, cut off, nothing that can be decoded, an interval
    that cannot be.
    """
    if start < 0 or (end is not None and end <= start):
        raise MediaError(f"{path}: sound cannot be read from {start} s to {end} s; swap them")
    origin = first_frame_time(path)
    with open_media(path) as container:
        stream = _sound_stream(container, path)
        source_rate = stream.codec_context.sample_rate
        layout = "mono" if mono else stream.codec_context.layout
        blocks = _placed(_blocks(container, stream, layout), source_rate, origin, path)
        rate = source_rate if rate is None else rate
        stop = None if end is None else round(end * rate)
        true = _true_length(container, stream, rate, origin)
        pieces = _resampled(blocks, layout, source_rate, rate)
        samples = _window(pieces, rate, round(start * rate), stop, true)
        if samples is None:
            raise MediaError(
                f"{path}: holds no sound that can be decoded; convert it to WAV or MP4"
            )
    return (samples[0] if mono else np.ascontiguousarray(samples.T)), rate


def _sound_stream(container, path):
    if not container.streams.audio:
        raise MediaError(f"{path}: has no sound; give a file with a sound track")
    stream = container.streams.audio[0]
    if stream.codec_context is None or not stream.codec_context.sample_rate:
        raise MediaError(f"{path}: its sound cannot be decoded; convert it to WAV or MP4")
    return stream


def _blocks(container, stream, layout):
    """Decoded sound: yields (time in seconds or None, float32 [c n]) at the track's rate."""
    converter, shape = None, None
    for packet in container.demux(stream):
        try:
            frames = stream.decode(packet)
        except av.error.FFmpegError:
            continue  # a damaged packet becomes a gap, which `_placed` fills with silence
        for frame in frames:
            # A track may change on its way, as HE-AAC does from mono to stereo.
            if shape != (frame.format.name, frame.layout.name, frame.sample_rate):
                shape = frame.format.name, frame.layout.name, frame.sample_rate
                # Without the limit, float stereo is mixed as 0.7 (left + right) and exceeds 1.
                converter = av.AudioResampler(
                    "fltp", layout, stream.codec_context.sample_rate, options=MIX
                )
            time = None if frame.pts is None else frame.pts * frame.time_base
            for block in converter.resample(frame):
                yield time, block.to_ndarray()


def _placed(blocks, rate: int, origin: Fraction | None, path):
    """Puts blocks where their times say: fills gaps, cuts overlaps and the time before origin."""
    written = 0  # samples since the origin
    for time, block in blocks:
        if origin is None:
            origin = time or Fraction(0)
        gap = 0 if time is None else round((time - origin) * rate) - written
        if gap > LARGEST_GAP * rate or (written and gap < -rate):
            raise MediaError(
                f"{path}: the clock of its sound jumps by {gap / rate:.0f} s at "
                f"{written / rate:.1f} s; convert it again from its source"
            )
        if written == 0 or abs(gap) > STEP * rate:
            if gap > 0:
                block = np.pad(block, ((0, 0), (gap, 0)))
            block = block[:, max(0, -gap) :]
        if block.shape[1]:
            written += block.shape[1]
            yield block


def _resampled(blocks, layout, source_rate: int, rate: int):
    """float32 [c n] blocks -> float32 [c m] blocks, m = n * rate / source_rate in all."""
    resampler = av.AudioResampler("fltp", layout, rate)
    taken, made = 0, 0
    for block in blocks:
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(block), "fltp", layout)
        frame.sample_rate, frame.pts, frame.time_base = source_rate, taken, Fraction(1, source_rate)
        taken += block.shape[1]
        for piece in resampler.resample(frame):
            made += piece.samples
            yield piece.to_ndarray()
    if not taken:
        return
    # The filter's tail makes a few samples more or less than the time that went in.
    left = max(0, round(Fraction(taken * rate, source_rate)) - made)
    tail = [piece.to_ndarray() for piece in resampler.resample(None) if piece]
    tail = np.concatenate([*tail, np.zeros((block.shape[0], left), np.float32)], axis=1)
    yield tail[:, :left]


def _window(pieces, rate: int, first: int, stop: int | None, true: int | None):
    """Samples [first, stop) of float32 [c m] blocks, without padding; None without any block.

    true: the length that the file declares. What it holds beyond is what the encoder added to fill
    its last packet, and is cut; more than two packets would be a wrong declaration, not padding.
    """
    kept, made = [], 0
    for piece in pieces:
        cut = piece[:, max(0, first - made) :]
        cut = cut if stop is None else cut[:, : max(0, stop - max(made, first))]
        if cut.shape[1] or not kept:
            kept.append(cut.copy())  # an empty view would keep its whole block in memory
        made += piece.shape[1]
        # From here on it doesn't matter where the sound ends: padding is shorter than this.
        if stop is not None and made >= stop + rate // 4:
            break
    if not kept:
        return None
    samples = np.concatenate(kept, axis=1)
    if true is not None and 0 < made - true < rate / 4:
        samples = samples[:, : max(0, true - first)]
    return samples


def _true_length(container, stream, rate: int, origin) -> int | None:
    """Samples from `origin` on that MP4/MOV declare, without what fills the last packet."""
    if "mov" not in container.format.name or not stream.duration:
        return None
    start = (stream.start_time or 0) * stream.time_base
    end = start + stream.duration * stream.time_base - (start if origin is None else origin)
    return round(end * rate)

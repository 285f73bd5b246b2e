"""Sound: read from any file in step with its picture, turned into features at 50 tokens a second.

Every feature gives one token per 320 samples at 16 kHz, so a frame of a 25-fps video spans the two
tokens 2i and 2i + 1.
"""

from __future__ import annotations

import functools
from fractions import Fraction
from pathlib import Path

import av
import librosa
import numpy as np

from data_pipelines.media import MediaError, open_media
from data_pipelines.video import LARGEST_GAP, first_frame_time

SAMPLE_RATE = 16000  # Hz, what every feature takes
FEATURE_RATE = 50  # tokens a second
TOKEN = SAMPLE_RATE // FEATURE_RATE  # samples a token

# Whisper's front end: 25-ms Hann window, 10-ms hop, 80 Slaney bands to 8 kHz.
WINDOW, HOP, BANDS = 400, 160, 80
# Power of silence. Whisper clips 8 decades under the clip's own maximum, so that a cough changes
# the features of all other words; a fixed floor makes a token depend on its own samples only.
FLOOR = 1e-8
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
    bit for bit, in step with `video.read_frames`; fewer, or none, where the sound ends before. All
    sound up to `end` is decoded, because codecs remember (AAC even seeds its noise), but not kept.

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


def log_mel(audio: np.ndarray) -> np.ndarray:
    """Log-mel spectrogram as tokens: float [n] at 16 kHz -> float32 [t 160], t = ceil(n / 320).

    Token k describes the samples [320 k, 320 k + 320): two hops of 10 ms with 80 bands each, every
    window centred on its hop. Values are Whisper's (log10(power) + 4) / 4 with a fixed floor:
    silence is -1, loud speech up to about 1.5. Samples that are not finite count as silence; no
    samples give one silent token. The ends are mirrored, not padded with zeros.
    """
    tokens = count_tokens(audio)
    before = (WINDOW - HOP) // 2
    samples = piece(audio, -before, tokens * TOKEN + before)
    features = np.empty((2 * tokens, BANDS), np.float32)
    for start, power in _mel_power(samples, BANDS):
        features[start : start + len(power)] = (np.log10(np.maximum(power, FLOOR)) + 4) / 4
    return features.reshape(tokens, 2 * BANDS)


# name -> (function of float32 [n] at 16 kHz -> float32 [t width] at FEATURE_RATE, width). Those of
# a speech network are made by swaptalk_jax/speech.py.
FEATURES = {"log_mel": (log_mel, 2 * BANDS)}


def whisper_mel(samples: np.ndarray, bands: int, loudest: float | None = None) -> np.ndarray:
    """Whisper's own log-mel spectrogram: float [n], finite -> float32 [n // 160 bands].

    Row j is centred on sample 160 j. It is clipped 8 decades below `loudest`, the log10 of a power
    (`whisper_loudest`); None takes that of these samples, as Whisper does. Then (x + 4) / 4.
    """
    features = np.empty((len(samples) // HOP, bands), np.float32)
    for start, power in _whisper_power(samples, bands):
        features[start : start + len(power)] = np.log10(np.maximum(power, 1e-10))
    loudest = features.max() if loudest is None else loudest
    return (np.maximum(features, loudest - 8) + 4) / 4


def whisper_loudest(samples: np.ndarray, bands: int) -> float:
    """log10 of the greatest power in a band of a row of `whisper_mel`, at least -10."""
    greatest = max(power.max() for _, power in _whisper_power(samples, bands))
    return float(np.log10(np.maximum(greatest, 1e-10)))


def count_tokens(audio: np.ndarray) -> int:
    """Tokens of a sound, ceil(n / 320), at least 1. MediaError unless it is float [n]."""
    audio = np.asarray(audio)
    if audio.ndim != 1 or audio.dtype.kind != "f":
        raise MediaError(f"features take float samples [n], not {audio.dtype} {list(audio.shape)}")
    return max(1, -(-len(audio) // TOKEN))


def piece(audio: np.ndarray, start: int, stop: int) -> np.ndarray:
    """Samples [start, stop) of a sound float [n], mirrored beyond its ends -> float32.

    Samples that are not finite count as silence, and so does a sound without samples.
    """
    if not len(audio):
        return np.zeros(stop - start, np.float32)
    inside = np.asarray(audio[max(start, 0) : max(stop, 0)], np.float32)
    if start < 0 or stop > len(audio):
        turn = max(2 * (len(audio) - 1), 1)
        places = np.abs((np.arange(start, stop) + len(audio) - 1) % turn - (len(audio) - 1))
        inside = np.asarray(audio[places], np.float32)
    return np.nan_to_num(inside, posinf=0, neginf=0)


def _whisper_power(samples, bands):
    """Mel power of the original's rows: mirrored ends, without the one centred on the end."""
    length = len(samples) // HOP * HOP + WINDOW - HOP
    samples = np.pad(np.asarray(samples, np.float64), WINDOW // 2, "reflect")
    return _mel_power(samples[:length], bands)


def _mel_power(samples: np.ndarray, bands: int):
    """Yields (i, float32 [m bands]): mel power of the windows from the i-th on, a hop apart.

    samples: float [n]; their dtype is that of the spectrum. A minute at a time bounds the memory.
    """
    windows = np.lib.stride_tricks.sliding_window_view(samples, WINDOW)[::HOP]
    filters, hann = _mel_filters(bands), np.hanning(WINDOW + 1)[:-1].astype(samples.dtype)
    for start in range(0, len(windows), 6000):
        spectrum = np.fft.rfft(windows[start : start + 6000] * hann)
        yield start, (spectrum.real**2 + spectrum.imag**2).astype(np.float32) @ filters


def context_windows(
    features: np.ndarray, fps: Fraction, frames: int, context: int = 5, first: int = 0
) -> np.ndarray:
    """The tokens around each frame: float [n d] -> float32 [frames 2*context d].

    Row i belongs to frame `first` + i of a video at `fps` and starts at the token nearest to
    ((first + i + 0.5) / fps) * 50 - context, computed exactly: nothing drifts. Tokens before
    the first and after the last repeat it.
    """
    features = np.asarray(features)
    if features.ndim != 2 or not len(features):
        raise MediaError(f"features must be [n d] with n >= 1, not {list(features.shape)}")
    tokens = context_tokens(len(features), fps, frames, context, first)
    return features[tokens].astype(np.float32)


def context_tokens(
    count: int, fps: Fraction, frames: int, context: int = 5, first: int = 0
) -> np.ndarray:
    """Which of `count` tokens `context_windows` takes: int64 [frames 2*context]."""
    p, q = (Fraction(FEATURE_RATE) / Fraction(fps)).as_integer_ratio()
    # floor(x + 1/2), because round() sends halves to even numbers and would stutter at 50 fps; in
    # whole numbers, because Fraction takes a third of the time of a training example.
    starts = [((2 * (first + i) + 1) * p - (2 * context - 1) * q) // (2 * q) for i in range(frames)]
    tokens = np.asarray(starts, np.int64).reshape(-1, 1) + np.arange(2 * context)
    return np.clip(tokens, 0, count - 1)


@functools.cache
def _mel_filters(bands: int) -> np.ndarray:
    """float32 [201 bands]: power spectrum -> mel bands."""
    bank = librosa.filters.mel(sr=SAMPLE_RATE, n_fft=WINDOW, n_mels=bands)
    return np.ascontiguousarray(bank.T.astype(np.float32))


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

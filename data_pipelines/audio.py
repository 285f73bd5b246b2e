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

from data_pipelines.video import LARGEST_GAP, MediaError, first_frame_time, open_media

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
    path: str | Path, rate: int | None = SAMPLE_RATE, mono: bool = True
) -> tuple[np.ndarray, int]:
    """Reads the first sound track of any media file -> (float32 [n] or [n c], rate in Hz).

    Sample 0 is heard when the first frame of the picture is shown: sound that starts earlier is
    cut, sound that starts later is led in with silence, and so are gaps. Without a picture the
    first sample is the first that there is. rate=None keeps the file's rate, mono=False its
    channels (c may be 1). Values are in [-1, 1], but lossy codecs and resampling
    overshoot a little.

    Raises MediaError: no such file, no sound, cut off, nothing that can be decoded.
    """
    origin = first_frame_time(path)
    with open_media(path) as container:
        stream = _sound_stream(container, path)
        source_rate = stream.codec_context.sample_rate
        layout = "mono" if mono else stream.codec_context.layout
        blocks = _placed(_blocks(container, stream, layout), source_rate, origin, path)
        rate = source_rate if rate is None else rate
        samples = _resampled(blocks, layout, source_rate, rate)
        if samples is None:
            raise MediaError(
                f"{path}: holds no sound that can be decoded; convert it to WAV or MP4"
            )
        samples = _unpadded(samples, container, stream, rate, origin)
    return (samples[0] if mono else np.ascontiguousarray(samples.T)), rate


def log_mel(audio: np.ndarray) -> np.ndarray:
    """Log-mel spectrogram as tokens: float [n] at 16 kHz -> float32 [t 160], t = ceil(n / 320).

    Token k describes the samples [320 k, 320 k + 320): two hops of 10 ms with 80 bands each, every
    window centred on its hop. Values are Whisper's (log10(power) + 4) / 4 with a fixed floor:
    silence is -1, loud speech up to about 1.5. Samples that are not finite count as silence; no
    samples give one silent token. The ends are mirrored, not padded with zeros.
    """
    audio = np.asarray(audio)
    if audio.ndim != 1 or audio.dtype.kind != "f":
        raise MediaError(f"log_mel takes float samples [n], not {audio.dtype} {list(audio.shape)}")
    samples = np.nan_to_num(audio.astype(np.float32), posinf=0, neginf=0)
    tokens = max(1, -(-len(samples) // TOKEN))
    if not len(samples):
        samples = np.zeros(1, np.float32)
    before = (WINDOW - HOP) // 2
    mode = "reflect" if len(samples) > 1 else "edge"
    samples = np.pad(samples, (before, before + tokens * TOKEN - len(samples)), mode)
    windows = np.lib.stride_tricks.sliding_window_view(samples, WINDOW)[::HOP]
    filters, hann = _mel_filters(), np.hanning(WINDOW + 1)[:-1].astype(np.float32)
    features = np.empty((len(windows), BANDS), np.float32)
    for start in range(0, len(windows), 6000):  # a minute at a time bounds the memory
        spectrum = np.fft.rfft(windows[start : start + 6000] * hann)
        power = (spectrum.real**2 + spectrum.imag**2).astype(np.float32) @ filters
        features[start : start + 6000] = (np.log10(np.maximum(power, FLOOR)) + 4) / 4
    return features.reshape(tokens, 2 * BANDS)


# name -> (function of float32 [n] at 16 kHz -> float32 [t width] at FEATURE_RATE, width)
FEATURES = {"log_mel": (log_mel, 2 * BANDS)}


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
    step = Fraction(FEATURE_RATE) / Fraction(fps)
    half = Fraction(1, 2)
    # floor(x + 1/2), because round() sends halves to even numbers and would stutter at 50 fps
    starts = [((first + i + half) * step - context + half).__floor__() for i in range(frames)]
    tokens = np.asarray(starts, np.int64).reshape(-1, 1) + np.arange(2 * context)
    return features[np.clip(tokens, 0, len(features) - 1)].astype(np.float32)


@functools.cache
def _mel_filters() -> np.ndarray:
    """float32 [201 80]: power spectrum -> mel bands."""
    bank = librosa.filters.mel(sr=SAMPLE_RATE, n_fft=WINDOW, n_mels=BANDS)
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


def _resampled(blocks, layout, source_rate: int, rate: int) -> np.ndarray | None:
    """float32 [c n] blocks -> one float32 [c m], m = n * rate / source_rate; None without any."""
    resampler = av.AudioResampler("fltp", layout, rate)
    pieces, taken = [], 0
    for block in blocks:
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(block), "fltp", layout)
        frame.sample_rate, frame.pts, frame.time_base = source_rate, taken, Fraction(1, source_rate)
        taken += block.shape[1]
        pieces += [piece.to_ndarray() for piece in resampler.resample(frame)]
    if not taken:
        return None
    pieces += [piece.to_ndarray() for piece in resampler.resample(None) if piece]
    samples = np.concatenate(pieces, axis=1)
    # The filter's tail makes a few samples more or less than the time that went in.
    length = round(Fraction(taken * rate, source_rate))
    return np.pad(samples[:, :length], ((0, 0), (0, max(0, length - samples.shape[1]))))


def _unpadded(samples: np.ndarray, container, stream, rate: int, origin) -> np.ndarray:
    """Cuts what the encoder added to fill its last packet: MP4/MOV declare the true length."""
    if "mov" not in container.format.name or not stream.duration:
        return samples
    start = (stream.start_time or 0) * stream.time_base
    end = start + stream.duration * stream.time_base - (start if origin is None else origin)
    length = round(end * rate)
    # More than two packets would be a wrong declaration, not padding.
    return samples[:, :length] if 0 < samples.shape[1] - length < rate / 4 else samples

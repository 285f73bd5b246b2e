"""Spectra of sound: log-mel features at 50 Hz, and Whisper's mel spectrum."""

import functools

import numpy as np

from data_pipelines.media.opening import MediaError
from data_pipelines.rates import SAMPLE_RATE, TOKEN

# Whisper's front end: 25-ms Hann window, 10-ms hop, 80 Slaney bands to 8 kHz.
WINDOW, HOP, BANDS = 400, 160, 80

# Power of silence. Whisper clips 8 decades under the clip's own maximum, so that a cough changes
# the features of all other words; a fixed floor makes a token depend on its own samples only.
FLOOR = 1e-8


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
# a speech network are made by swaptalk_jax/sound.py.
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


@functools.cache
def _mel_filters(bands: int) -> np.ndarray:
    """float32 [201 bands]: power spectrum -> mel bands."""
    import librosa  # here: it takes a second to import, and most commands hear nothing

    bank = librosa.filters.mel(sr=SAMPLE_RATE, n_fft=WINDOW, n_mels=bands)
    return np.ascontiguousarray(bank.T.astype(np.float32))

"""Speech of the synthetic set: phone sequences, a source-filter voice, and the mouth they imply.

One table holds, for every phone, what is heard (formants, noise band, gains) and what is seen
(mouth targets); both are read from the same phone sequence, so the sound determines the mouth.
Formants follow the usual textbook averages (Peterson and Barney 1952 for vowels); coarticulation
is a dominance-weighted average in the spirit of Cohen and Massaro (1993).
"""

from dataclasses import dataclass

import numpy as np

from data_pipelines.rates import SAMPLE_RATE

HOP = 80  # samples between synthesis frames: 5 ms
WINDOW = 320  # samples of a synthesis frame: 20 ms, long enough for two periods at 100 Hz
BINS = 512  # FFT length: the window plus room for the filter's own response
MOUTH = ("opening", "width", "rounding", "teeth", "tongue")


@dataclass(frozen=True)
class Phone:
    """One row of the table. Hz for frequencies, linear gains, seconds for the mean duration."""

    formants: tuple[float, float, float]
    voice: float
    noise: tuple[float, float, float]  # centre Hz, width Hz, gain
    mouth: tuple[float, float, float, float, float]  # MOUTH: width in [-1, 1], others in [0, 1]
    dominance: float  # how firmly the mouth insists on its target against its neighbours
    duration: float
    stop: bool = False  # plosive: closure, then a burst of the noise band in the last third


_QUIET = (1000.0, 1000.0, 0.0)
PHONES = {
    "_": Phone((500, 1500, 2500), 0.0, _QUIET, (0, 0, 0, 0, 0), 3.0, 0.20),
    "a": Phone((750, 1250, 2550), 1.0, _QUIET, (1.0, 0.15, 0, 0.6, 0.5), 1.0, 0.145),
    "æ": Phone((640, 1750, 2450), 0.95, _QUIET, (0.78, 0.75, 0, 0.9, 0.45), 1.0, 0.140),
    "e": Phone((480, 2000, 2600), 0.85, _QUIET, (0.50, 0.80, 0, 1.0, 0.4), 1.0, 0.125),
    "i": Phone((280, 2350, 3000), 0.70, _QUIET, (0.26, 1.0, 0, 1.0, 0.2), 1.2, 0.125),
    "o": Phone((480, 850, 2450), 0.90, _QUIET, (0.66, -0.3, 0.85, 0.1, 0.3), 1.2, 0.140),
    "u": Phone((310, 800, 2250), 0.70, _QUIET, (0.30, -0.7, 1.0, 0.0, 0.1), 1.4, 0.130),
    "ə": Phone((540, 1450, 2500), 0.75, _QUIET, (0.42, 0.0, 0.1, 0.5, 0.3), 0.7, 0.080),
    "m": Phone((250, 1050, 2200), 0.40, _QUIET, (0, 0.0, 0.05, 0, 0), 5.0, 0.085),
    "b": Phone((280, 900, 2200), 0.12, (600, 700, 0.5), (0, 0.0, 0.05, 0, 0), 5.0, 0.085, True),
    "p": Phone((350, 950, 2300), 0.0, (900, 900, 0.8), (0, 0.0, 0.05, 0, 0), 5.0, 0.095, True),
    "f": Phone((350, 1300, 2400), 0.0, (5200, 5000, 0.20), (0.1, 0.3, 0, 1.0, 0), 4.0, 0.110),
    "v": Phone((300, 1250, 2400), 0.30, (5000, 5000, 0.12), (0.1, 0.3, 0, 1.0, 0), 4.0, 0.080),
    "s": Phone((350, 1700, 2600), 0.0, (6300, 1700, 0.55), (0.14, 0.7, 0, 1.0, 0), 3.0, 0.115),
    "z": Phone((300, 1700, 2600), 0.28, (6200, 1700, 0.32), (0.14, 0.7, 0, 1.0, 0), 3.0, 0.090),
    "ʃ": Phone((350, 1800, 2500), 0.0, (3300, 1500, 0.60), (0.24, -0.4, 0.7, 1.0, 0), 3.0, 0.115),
    "t": Phone(
        (350, 1800, 2700), 0.0, (4400, 2200, 0.9), (0.2, 0.3, 0, 0.9, 0.6), 1.8, 0.090, True
    ),
    "d": Phone(
        (300, 1750, 2700), 0.12, (3900, 2200, 0.5), (0.2, 0.3, 0, 0.8, 0.7), 1.8, 0.075, True
    ),
    "n": Phone((270, 1650, 2600), 0.40, _QUIET, (0.22, 0.3, 0, 0.7, 0.8), 1.8, 0.075),
    "k": Phone(
        (350, 1900, 2300), 0.0, (2000, 900, 0.9), (0.36, 0.1, 0, 0.5, 0.1), 1.2, 0.095, True
    ),
    "g": Phone(
        (300, 1900, 2300), 0.12, (1800, 900, 0.5), (0.36, 0.1, 0, 0.5, 0.1), 1.2, 0.08, True
    ),
    "l": Phone((360, 1150, 2700), 0.55, _QUIET, (0.38, 0.2, 0, 0.5, 1.0), 1.8, 0.075),
    "r": Phone((380, 1200, 1650), 0.55, _QUIET, (0.26, -0.3, 0.6, 0.5, 0.2), 1.8, 0.080),
    "w": Phone((300, 650, 2200), 0.50, _QUIET, (0.12, -0.8, 1.0, 0, 0), 3.0, 0.080),
}
VOWELS = "aæeiouə"
CONSONANTS = "mbpfvszʃtdnkglrw"
CODAS = "mnlrstkpfz"


@dataclass(frozen=True)
class Speech:
    """A phone sequence on the time axis.

    phones: names in PHONES, n of them. ends float64 [n]: end times in seconds (the first phone
    starts at 0). effort float64 [n] in [0.8, 1]: scales loudness and opening alike.
    """

    phones: tuple[str, ...]
    ends: np.ndarray
    effort: np.ndarray


def sample_speech(rng: np.random.Generator, duration: float) -> Speech:
    """Words of CV and CVC syllables with pauses, at least `duration` seconds of them.

    A clip begins with 40-120 ms of silence; phrases of 1.3-2.6 s are parted by pauses of
    100-300 ms, so about a tenth of the time is silent. The draw goes phone by phone, so a longer
    request only continues a shorter one.
    """
    rate = rng.uniform(0.9, 1.15)
    names, lengths, effort = ["_"], [rng.uniform(0.04, 0.12)], [1.0]
    now, phrase = lengths[0], rng.uniform(1.3, 2.6)
    while now < duration:
        stress = rng.uniform(0.8, 1.0)
        syllable = rng.choice(list(CONSONANTS)) if rng.random() < 0.92 else ""
        syllable += rng.choice(list(VOWELS), p=[0.2, 0.14, 0.15, 0.17, 0.14, 0.12, 0.08])
        syllable += rng.choice(list(CODAS)) if rng.random() < 0.3 else ""
        for name in syllable:
            length = np.clip(PHONES[name].duration * rate * rng.uniform(0.8, 1.25), 0.06, 0.18)
            names.append(name)
            lengths.append(length)
            effort.append(stress)
            now, phrase = now + length, phrase - length
        if phrase < 0:
            names.append("_")
            lengths.append(rng.uniform(0.10, 0.30))
            effort.append(1.0)
            now, phrase = now + lengths[-1], rng.uniform(1.3, 2.6)
    return Speech(tuple(names), np.cumsum(lengths), np.array(effort))


def mouth_track(speech: Speech, times: np.ndarray) -> np.ndarray:
    """Mouth parameters at times [t] seconds -> float32 [t 5], columns as MOUTH.

    Targets of the phones, weighted by their dominance and smoothed with a Gaussian of 32 ms
    (coarticulation). Width is in [-1, 1], the others in [0, 1]; silence is a closed mouth.
    """
    step = 0.004
    grid = np.arange(-0.2, times[-1] + 0.2, step)  # margins hold the edges: no end effects
    index = _phone_at(speech, grid)
    targets = np.array([PHONES[name].mouth for name in speech.phones])
    targets[:, 0] *= speech.effort
    weight = np.array([PHONES[name].dominance for name in speech.phones])[index]
    kernel = _gaussian(0.032 / step)
    total = np.convolve(weight, kernel, mode="same")
    tracks = [
        np.convolve(weight * targets[index, k], kernel, mode="same") / total for k in range(5)
    ]
    return np.stack([np.interp(times, grid, track) for track in tracks], 1).astype(np.float32)


def synthesise(
    speech: Speech,
    samples: int,
    pitch: float,
    tract: float,
    breath: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """The voice that speaks the phones -> float32 [samples] at SAMPLE_RATE, within [-1, 1].

    pitch: mean fundamental in Hz. tract: factor on all formants (1.15: a short tract). breath:
    noise mixed into vowels, 0-1. A band-limited pulse train and white noise are cut into frames,
    filtered by per-frame magnitude responses, and overlap-added.
    """
    frames = samples // HOP + 16 + WINDOW // HOP  # the surplus keeps smoothing off the end
    times = (np.arange(frames) * HOP - WINDOW / 2) / SAMPLE_RATE
    voice, noise, formants = _controls(speech, times)
    frequency = np.fft.rfftfreq(BINS, 1 / SAMPLE_RATE)
    voiced = voice[:, None] * _resonances(frequency, formants * tract)
    centre, width, gain = noise.T
    hiss = gain[:, None] * np.exp(-0.5 * ((frequency - centre[:, None]) / width[:, None]) ** 2)
    hiss += 0.04 * breath * voiced + 3e-4  # breath is coloured by the tract; the rest is the room

    total = frames * HOP + WINDOW
    pulses = _pulse_train(_pitch_contour(pitch, total, rng), pitch)
    white = rng.standard_normal(total).astype(np.float32)
    cut = np.arange(frames)[:, None] * HOP + np.arange(WINDOW)
    hann = np.hanning(WINDOW + 1)[:-1].astype(np.float32)
    spectrum = np.fft.rfft(pulses[cut] * hann, BINS) * voiced
    spectrum += np.fft.rfft(white[cut] * hann, BINS) * hiss
    # Magnitude responses are zero-phase and ring to both sides: roll so that they stay in frame.
    pieces = np.roll(np.fft.irfft(spectrum, BINS), (BINS - WINDOW) // 2, axis=1)
    out = np.zeros((frames + BINS // HOP + 1) * HOP)
    for part in range(0, BINS, HOP):  # one strided add per hop of the frame, not per frame
        piece = pieces[:, part : part + HOP]
        rows = out[(part // HOP) * HOP :][: frames * HOP].reshape(frames, HOP)
        rows[:, : piece.shape[1]] += piece
    start = WINDOW + (BINS - WINDOW) // 2  # where time 0 lies, see `times` and the roll
    return np.tanh(0.4 * out[start : start + samples]).astype(np.float32)


def _phone_at(speech: Speech, times: np.ndarray) -> np.ndarray:
    """Index of the phone spoken at each time; times outside hold the first or the last phone."""
    return np.minimum(np.searchsorted(speech.ends, times, side="right"), len(speech.ends) - 1)


def _gaussian(sigma: float) -> np.ndarray:
    """Normalised Gaussian kernel, sigma in samples, cut at 3 sigma."""
    x = np.arange(-int(3 * sigma + 1), int(3 * sigma + 1) + 1)
    kernel = np.exp(-0.5 * (x / sigma) ** 2)
    return kernel / kernel.sum()


def _controls(speech: Speech, times: np.ndarray):
    """Synthesis controls at times [t] -> voice [t], noise [t 3], formants [t 3], smoothed."""
    index = _phone_at(speech, times)
    table = [PHONES[name] for name in speech.phones]
    starts = np.concatenate([[0.0], speech.ends[:-1]])
    progress = (times - starts[index]) / (speech.ends - starts)[index]
    stop = np.array([phone.stop for phone in table])[index]
    voice = np.array([phone.voice for phone in table])[index] * speech.effort[index]
    noise = np.array([phone.noise for phone in table])[index]
    noise[:, 2] *= np.where(stop, progress > 0.68, 1.0) * speech.effort[index]
    formants = np.array([phone.formants for phone in table], float)[index]
    smooth = _gaussian(0.007 / (HOP / SAMPLE_RATE))
    glide = _gaussian(0.016 / (HOP / SAMPLE_RATE))
    voice = np.convolve(_padded(voice, glide), glide, mode="valid")
    noise[:, 2] = np.convolve(_padded(noise[:, 2], smooth), smooth, mode="valid")
    columns = [np.convolve(_padded(f, glide), glide, mode="valid") for f in formants.T]
    return voice, noise, np.stack(columns, 1)


def _padded(track: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    return np.pad(track, len(kernel) // 2, mode="edge")


def _resonances(frequency: np.ndarray, formants: np.ndarray) -> np.ndarray:
    """Magnitude response of a vocal tract: formants [t 3] Hz at frequency [f] -> [t f]."""
    response = (1 + (frequency / 600.0) ** 2) ** -0.35 * np.ones((len(formants), 1))  # glottal tilt
    for column, bandwidth in zip(formants.T, (90.0, 120.0, 170.0), strict=True):
        f = column[:, None]
        response = response * f**2 / np.hypot(frequency**2 - f**2, 1.6 * bandwidth * frequency)
    # Higher formants are fixed in speech; without this floor the top of the spectrum vanishes.
    return response / (1 + 0.15 * response) + 0.02


def _pitch_contour(pitch: float, samples: int, rng: np.random.Generator) -> np.ndarray:
    """Fundamental in Hz per sample: slow waves around the mean, as in lively reading."""
    t = np.arange(samples) / SAMPLE_RATE
    octaves = np.zeros(samples)
    for low, high, size in ((0.2, 0.5, 0.10), (0.8, 1.6, 0.07), (4.5, 6.0, 0.01)):
        octaves += size * np.sin(2 * np.pi * (rng.uniform(low, high) * t + rng.random()))
    return pitch * 2**octaves


def _pulse_train(fundamental: np.ndarray, pitch: float) -> np.ndarray:
    """Band-limited pulses: equal cosines of all harmonics, summed in closed form (Dirichlet)."""
    phase = np.cumsum(fundamental) * (2 * np.pi / SAMPLE_RATE) + 0.5
    harmonics = int(7000 / (pitch * 1.15))
    top, half = np.sin((harmonics + 0.5) * phase), np.sin(phase / 2)
    limit = np.full(len(phase), 2.0 * harmonics + 1)  # of the quotient at the pulse itself
    pulses = np.divide(top, half, out=limit, where=np.abs(half) > 1e-9) - 1
    return (pulses / np.sqrt(2 * harmonics)).astype(np.float32)  # unit power at any pitch

"""A/V offset of a clip: by how many frames its sound comes late, and how sure that is.

No network: a linear model that the corpus under construction teaches itself. It pairs what a mouth
looks like with what is heard in that frame (canonical correlations), trusting that most clips are
in step with each other. Each clip is slid along its sound under a model that saw nobody of its
group, and the offset is where the two agree best.

    clips = [MouthAndSound(name, group, features(landmarks, patches, size), sound) for ...]
    model = calibrate(clips)
    model.measure(clips[0])  # Offset(frames=3, confidence=41.0, sure=True, curve=...)

frames > 0: the sound comes late, so cut it `frames` frames later. Zero is what most clips of the
corpus have. Where it is too small to say (fewer than ANCHORS groups that agree), zero is where
an open, dark mouth meets loud speech, which is right to SLACK frames, so less is not reported.

Everything is a function of the clips alone, not of their order, so that a build that is run again
is the same byte for byte.
"""

import dataclasses
import hashlib
import os
import zipfile
from collections.abc import Iterable

import numpy as np
import scipy.fft
import scipy.linalg
import scipy.ndimage

from data_pipelines import files
from data_pipelines.mouth_and_sound import (
    BANDS,
    COLUMNS,
    CONTEXT,
    MARGIN,
    MouthAndSound,
    mouth_features,
    sound_features,
)
from data_pipelines.rates import TOKENS

# Lags beyond the margin are never reported, but a match there must not be taken for one within.
REACH = 15  # frames
# Enough for a model of some 500 numbers: more clips change it by less than their noise.
MOST = 512

RIDGE_SOUND, RIDGE_MOUTH, PAIRS = 0.3, 1.0, 4
# What is known before any clip is seen: an open, dark mouth goes with loud speech. It weighs as
# much as a minute of clips, at the correlation that real clips have.
PRIOR_FRAMES, PRIOR = 1500, 0.5
PRIOR_BANDS = slice(1, 7)  # of ten: 300 Hz to 3 kHz, where voices are loud
FOLDS, ROUNDS = 16, 3
# A clip may be worse than most (a beard, a moving head), so less than their correlation is expected
# of it. Nats by which the best lag must beat the thought that sound and mouth are strangers: frames
# are alike and lags are many, hence so many. Given another's sound, 2 of 100 real clips passed.
DOUBT, SURE = 0.7, 14.0
# Nats that make an offset good enough to learn from, and the weight of clips that have fewer.
LIKELY, DULL = 5.0, 0.3
# Groups that it takes to know the corpus' zero; and frames by which it is unknown otherwise.
ANCHORS, SLACK = 3, 2


@dataclasses.dataclass(frozen=True)
class Offset:
    """frames: by which the sound is late. confidence: nats for it, compared with no relation of
    sound and mouth. sure: whether to act on it. curve float32 [4 REACH + 1]: nats at the lags
    -REACH ... REACH frames in steps of half a frame, NaN where too little sound overlaps."""

    frames: int
    confidence: float
    sure: bool
    curve: np.ndarray


def sample(names: Iterable[str]) -> list[str]:
    """The at most MOST of the clips `names` to calibrate with, sorted; their order is no matter."""
    return sorted(sorted(set(names), key=_hash)[:MOST])


@dataclasses.dataclass(frozen=True)
class Model:
    """What calibrate() learnt. deviations [COLUMNS] of the mouth's features; for each fold that was
    left out: of_sound [FOLDS 10 (2 + 2 CONTEXT) PAIRS], of_mouth [FOLDS COLUMNS PAIRS] and their
    correlations [FOLDS PAIRS]; zero: of the corpus, in frames; anchored: whether it is known."""

    deviations: np.ndarray
    of_sound: np.ndarray
    of_mouth: np.ndarray
    correlations: np.ndarray
    zero: float
    anchored: bool

    def measure(self, clip: MouthAndSound) -> Offset:
        """The clip's offset, by the fold that has not seen its group.

        Raises ValueError when sound and mouth are not of one length.
        """
        curve = self._curve(
            mouth_features(clip) / self.deviations, sound_features(clip), clip.group
        )
        return _offset(curve, self.zero, self.anchored)

    def together(self, offsets: Iterable[Offset]) -> Offset:
        """One offset of several clips that must have the same, as those of one video."""
        return _offset(np.sum([o.curve for o in offsets], axis=0), self.zero, self.anchored)

    def _curve(self, mouth, sound, group):
        fold = _fold(group)
        r = DOUBT * self.correlations[fold]
        found = _correlations(mouth @ self.of_mouth[fold], sound @ self.of_sound[fold])
        # Log-ratio of a Gaussian pair of correlation r to two strangers, at the correlation found.
        nats = ((r * found - r**2) / (1 - r**2) - np.log(1 - r**2) / 2).sum(1)
        return (len(mouth) * nats).astype(np.float32)

    def save(self, path: str | os.PathLike) -> None:
        """Writes the model to path (.npz), whole or not at all."""
        files.replace_arrays(path, **dataclasses.asdict(self))


def load(path: str | os.PathLike) -> Model:
    """A model that save() wrote. Raises ValueError when the file is not one."""
    try:
        with np.load(path, allow_pickle=False) as data:
            fields = {field.name: data[field.name] for field in dataclasses.fields(Model)}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: not a model of A/V offsets ({error}); delete it") from error
    return Model(**fields | {"zero": float(fields["zero"]), "anchored": bool(fields["anchored"])})


def calibrate(clips: Iterable[MouthAndSound]) -> Model:
    """Learns from clips of which most are in step with each other (see sample: at most MOST).

    Takes a second per 100 clips of 10 s, and keeps 50 KB of each. Raises ValueError without clips.
    """
    clips = sorted(clips, key=lambda clip: clip.name)
    if not clips:
        raise ValueError("offset.calibrate: there is no clip to learn from")
    groups = [clip.group for clip in clips]
    mouths, sounds = (
        [mouth_features(clip) for clip in clips],
        [sound_features(clip) for clip in clips],
    )
    deviations = np.sqrt(np.mean(np.concatenate(mouths) ** 2, axis=0)) + 1e-6
    mouths = [mouth / deviations for mouth in mouths]
    # At first all are taken to be in step; then those are moved whose offset is likely, and the
    # others keep a small say where they are, lest a weak corpus dwindle to its few best clips.
    weights, shifts, zero, anchored = np.ones(len(clips)), np.zeros(len(clips)), 0.0, False
    for _ in range(ROUNDS):
        pairs = _fit(mouths, sounds, groups, shifts, weights)
        model = Model(deviations, *pairs, 0.0, True)
        curves = [model._curve(*row) for row in zip(mouths, sounds, groups, strict=True)]
        lags, nats = np.array([_peak(curve) for curve in curves]).T
        likely = (nats > LIKELY) & (np.abs(lags) <= MARGIN)
        zero, share = _mode(lags, np.where(likely, nats, 0.0))
        count = len({group for group, one in zip(groups, likely, strict=True) if one})
        anchored = count >= ANCHORS and share > 0.5
        zero = zero if anchored else 0.0
        weights, shifts = np.where(likely, 1.0, DULL), np.where(likely, lags - zero, 0.0)
    return dataclasses.replace(model, zero=zero, anchored=anchored)


def _fit(mouths, sounds, groups, shifts, weights):
    """Canonical pairs of sound and mouth, once for each fold left out."""
    width = sounds[0].shape[1]
    frames, cross = np.zeros(FOLDS), np.zeros((FOLDS, width, COLUMNS))
    total, of_sound, of_mouth = 0, np.zeros((width, width)), np.zeros((COLUMNS, COLUMNS))
    for mouth, sound, group, shift, weight in zip(
        mouths, sounds, groups, shifts, weights, strict=True
    ):
        at = _tokens(len(mouth)) + round(TOKENS * shift)
        known = (at >= 0) & (at < len(sound))
        x, y = sound[at[known]], mouth[known]
        known = np.isfinite(x[:, 0])
        x, y = x[known], y[known]
        total, of_sound, of_mouth = total + len(x), of_sound + x.T @ x, of_mouth + y.T @ y
        frames[_fold(group)] += weight * len(x)
        cross[_fold(group)] += weight * (x.T @ y)
    # Each for itself, a sound or a mouth tells nothing about the offset: all may have a say.
    of_sound, of_mouth = of_sound / max(total, 1), of_mouth / max(total, 1)
    prior = PRIOR * _prior(of_sound, of_mouth)
    x_root = _root(of_sound, RIDGE_SOUND)
    y_root = _root(of_mouth, RIDGE_MOUTH)
    pairs = []
    for fold in range(FOLDS):
        weight = frames.sum() - frames[fold]
        mixed = cross.sum(0) - cross[fold] + PRIOR_FRAMES * prior
        white = scipy.linalg.solve_triangular(x_root, mixed / (weight + PRIOR_FRAMES), lower=True)
        white = scipy.linalg.solve_triangular(y_root, white.T, lower=True).T
        u, r, v = np.linalg.svd(white, full_matrices=False)
        x = scipy.linalg.solve_triangular(x_root.T, u[:, :PAIRS])
        y = scipy.linalg.solve_triangular(y_root.T, v[:PAIRS].T)
        pairs.append((x, y, np.minimum(r[:PAIRS], 0.95)))
    return [np.stack(part) for part in zip(*pairs, strict=True)]


def _prior(of_sound, of_mouth):
    """Cross-covariance of loud speech with an open, dark mouth, were they one."""
    x, y = np.zeros((TOKENS + 2 * CONTEXT, BANDS)), np.zeros(COLUMNS)
    x[CONTEXT:-CONTEXT, PRIOR_BANDS], y[:2] = 1, 1
    left, right = of_sound @ x.ravel(), of_mouth @ y
    return np.outer(left, right) / np.sqrt((x.ravel() @ left) * (y @ right) + 1e-12)


def _root(covariance, ridge):
    size = len(covariance)
    ridge = ridge * max(np.trace(covariance) / size, 1e-6)
    return np.linalg.cholesky(covariance + ridge * np.eye(size))


def _tokens(frames):
    """First token of each frame in a clip's sound."""
    return TOKENS * (np.arange(frames) + MARGIN)


def _correlations(mouth, sound):
    """mouth [t k], sound [n k] -> their correlations [lags k] at the lags of Offset.curve."""
    at = _tokens(len(mouth))
    mouth = mouth / (mouth.std(0) + 1e-6)
    inside = sound[np.isfinite(sound[:, 0])]
    if len(inside):
        sound = (sound - inside.mean(0)) / (inside.std(0) + 1e-6)
    # NaN beyond the margins, so that every lag finds an index
    sound = np.pad(sound, ((TOKENS * REACH,) * 2, (0, 0)), constant_values=np.nan)
    rows = []
    for lag in range(2 * TOKENS * REACH + 1):
        product = mouth * sound[at + lag]
        product = product[np.isfinite(product[:, 0])]
        # On half a clip chance is twice as good at matching.
        enough = 2 * len(product) >= len(mouth)
        rows.append(product.mean(0) if enough else np.full(mouth.shape[1], np.nan))
    return np.stack(rows)


def _peak(curve):
    """(lag in frames, height) of the curve's top, between the steps by a parabola."""
    if not np.isfinite(curve).any():
        return 0.0, 0.0
    top = int(np.nanargmax(curve))
    lag, height = float(top), float(curve[top])
    before, after = curve[max(top - 1, 0)], curve[min(top + 1, len(curve) - 1)]
    bend = before - 2 * height + after
    if np.isfinite(bend) and bend < 0:
        lag += float(before - after) / (2 * float(bend))
    return lag / TOKENS - REACH, height


def _offset(curve, zero, anchored):
    lag, height = _peak(curve)
    frames = int(np.floor(lag - zero + 0.5))
    sure = height > SURE and abs(frames) <= MARGIN
    if not anchored and abs(frames) <= SLACK:
        frames = 0
    return Offset(frames, round(height, 2), bool(sure), curve)


def _mode(peaks, weights):
    """Where most weight lies within a frame to either side, and its share of all."""
    near = np.abs(peaks[:, None] - peaks) <= 1
    mass = near @ weights
    best = near[np.lexsort((np.abs(peaks), -mass))[0]]  # of two the nearer to zero
    if not weights[best].sum() > 0:
        return 0.0, 0.0
    share = weights[best].sum() / weights.sum()
    order = np.argsort(peaks[best], kind="stable")
    heavy = np.cumsum(weights[best][order]) / weights[best].sum() >= 0.5
    return float(peaks[best][order][np.argmax(heavy)]), float(share)


def _hash(text):
    return hashlib.sha256(text.encode()).hexdigest()


def _fold(group):
    return int(_hash(group)[:8], 16) % FOLDS

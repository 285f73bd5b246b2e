"""Features of sound by name: log-mel, or the hidden states of a speech network.

    features = Features("runs/pretrained/whisper_tiny_en")
    tokens = features(samples)  # float32 [n] at 16 kHz -> float32 [ceil(n / 320) width]

Token k is centred on sample 320 k + 160, whatever the feature, and a frame of a 25-fps video spans
the tokens 2i and 2i + 1.

A network hears a long sound in windows of one length, which overlap by OVERLAP tokens. All that is
local (convolutions, normalisation with the numbers of the whole sound) is in the middle of a window
what it would be without windows. Attention is not: a token hears its whole window, and Whisper
tells tokens their place in it. So near the ends of a window its tokens are dropped, and from one
window to the next they fade over FADE tokens: no step at the border, but features that turn, within
a second, into those of another place in a window.
"""

import functools
import json
from pathlib import Path

import jax
import numpy as np

from data_pipelines import rates
from data_pipelines.media import log_mel
from swaptalk_jax import backend, errors
from swaptalk_jax.models.public.hubert import CHANNELS, KERNELS, STRIDES, Hubert
from swaptalk_jax.models.public.whisper import WhisperEncoder
from swaptalk_jax.weights import store

OVERLAP = 250  # tokens, 5 s: the 2 s next to a window's end are dropped, the second between fades
FADE = 50  # tokens
BLOCK = 1 << 20  # samples that are read at once for the numbers of a whole sound


class Features:
    """A feature by name: `features(samples)`; `.name`, `.width`, `.fingerprint`, `.network`.

    source: a name in audio.FEATURES, or the folder of an installed speech network
    (swaptalk_jax.pretrained). network: (parameters, config) in place of what the folder holds, as
    a bundle brings them. `.network` is this pair, None for a feature without a network.
    Raises CheckpointError: unknown name, no network in the folder, or one of another kind.
    """

    def __init__(self, source, network=None):
        if network is None and source in log_mel.FEATURES:
            self._function, self.width = log_mel.FEATURES[source]
            self.name, self.fingerprint, self.network = source, source, None
            return
        self.network = params, config = network or _installed(source)
        kind, fields = config["network"], config["model"]["speech"]
        self._function, self.width = NETWORKS[kind](params, fields), fields["width"]
        self.name = config.get("source", {}).get("name", Path(source).name)
        described = np.frombuffer(json.dumps([kind, fields], sort_keys=True).encode(), np.uint8)
        self.fingerprint = store.fingerprint({"params": params, "fields": described})

    def __call__(self, samples):
        """float [n] at 16 kHz -> float32 [ceil(n / 320) width], at least one token.

        Samples that are not finite count as silence. MediaError unless they are float [n].
        """
        return self._function(samples)


class _Windowed:
    """A network over a sound of any length: one shape, one compilation, memory for the result.

    It computes in float32 on every device: features are constants of training, and inference has
    to find the same ones.
    """

    def __init__(self, model, params, window):
        self.model, self.params, self.window = model, params, window

    @functools.cached_property
    def _run(self):
        """(inputs of one window) -> hidden states [1 window width]."""
        params = jax.device_put(self.params)
        run = backend.jit(lambda params, *inputs: self.model.apply({"params": params}, *inputs))
        return functools.partial(run, params)

    def __call__(self, samples):
        tokens = log_mel.count_tokens(samples)
        out = np.zeros((tokens, self.model.width), np.float32)
        for start, *inputs in self.inputs(samples, tokens):
            stop = min(start + self.window, tokens)
            with jax.default_matmul_precision("highest"):  # TPU and GPU would round to bfloat16
                states = np.asarray(self._run(*inputs))[0]
            shares = fade(self.window, start > 0, start + self.window < tokens)
            out[start:stop] += (states * shares[:, None])[: stop - start]
        return out


class _Whisper(_Windowed):
    """WhisperEncoder on windows of 30 s, filled up with silence, as the original works.

    Whisper's token k is centred on sample 320 k of what it hears; it hears the sound from its 160th
    sample on, which puts the token in the middle of ours. 8 decades below the loudest moment of the
    whole sound the spectrum is clipped.
    """

    network = WhisperEncoder

    def __init__(self, params, fields):
        super().__init__(self.network(**fields), params, window=1500)

    def inputs(self, samples, tokens):
        def cut(start):
            first = start * rates.TOKEN + rates.TOKEN // 2
            length = self.window * rates.TOKEN
            known = min(max(len(samples) - first, 0), length)
            return np.pad(log_mel.piece(samples, first, first + known), (0, length - known))

        mels, first = self.model.mels, starts(tokens, self.window)
        loudest = max(log_mel.whisper_loudest(cut(start), mels) for start in first)
        for start in first:
            yield start, log_mel.whisper_mel(cut(start), mels, loudest)[None]


class _Hubert(_Windowed):
    """Hubert on windows of 20 s of a sound that is brought to mean 0 and variance 1 as a whole.

    A token of HuBERT sees 400 samples. 40 more than the tokens' own on either side, mirrored like
    log-mel's, put it in the middle of ours, and give ceil(n / 320) tokens in place of
    floor((n - 80) / 320).
    """

    network = Hubert
    MARGIN = 40  # samples

    def __init__(self, params, fields):
        super().__init__(self.network(**fields), params, window=1000)

    def inputs(self, samples, tokens):
        mean, deviation = loudness(samples)

        def cut(start, stop):
            return (log_mel.piece(samples, start, stop) - mean) / deviation

        moments = np.zeros((2, CHANNELS), np.float32)
        if not self.model.stable:
            kernel = self.params["conv_0"]["kernel"][:, 0]
            moments = first_moments(cut, tokens, kernel)
        for start in starts(tokens, self.window):
            first = start * rates.TOKEN - self.MARGIN
            stop = (start + self.window) * rates.TOKEN + self.MARGIN
            known = start + np.arange(self.window) < tokens
            yield start, cut(first, stop)[None], moments[None], known[None]


NETWORKS = {"WhisperEncoder": _Whisper, "Hubert": _Hubert}


def starts(tokens, window):
    """First tokens of the windows that cover a sound."""
    hop = window - OVERLAP
    return [hop * i for i in range(max(1, -(-(tokens - OVERLAP) // hop)))]


def fade(window, before, after):
    """Share float32 [window] of a window's tokens; shares of windows that overlap sum to 1.

    before, after: whether there is a window before this one, or after it.
    """
    rise = (np.arange(window) - (OVERLAP - FADE) // 2 + 0.5) / FADE
    shares = np.clip(rise, 0, 1) if before else np.ones(window)
    if after:
        shares = shares - np.clip(rise - (window - OVERLAP) / FADE, 0, 1)
    return shares.astype(np.float32)


def loudness(samples):
    """(mean, standard deviation) of a sound as HuBERT's preprocessing takes them, in blocks."""
    count, total, square = max(len(samples), 1), 0.0, 0.0
    for start in range(0, len(samples), BLOCK):
        block = log_mel.piece(samples, start, min(start + BLOCK, len(samples))).astype(np.float64)
        total, square = total + block.sum(), square + block @ block
    mean = total / count
    return np.float32(mean), np.float32(np.sqrt(max(square / count - mean**2, 0) + 1e-7))


def first_moments(cut, tokens, kernel):
    """Mean and variance float32 [2 c] of HuBERT's first convolution over a whole sound.

    cut(start, stop) -> samples; kernel [10 c]. The convolution is linear, so they follow from the
    mean m and the covariance C of its windows of 10 samples: w m and w C w.
    """
    size, step = KERNELS[0], STRIDES[0]
    end = tokens * rates.TOKEN + _Hubert.MARGIN
    total, square, count = np.zeros(size), np.zeros((size, size)), 0
    for start in range(-_Hubert.MARGIN, end - size + 1, BLOCK // step * step):
        block = cut(start, min(start + BLOCK // step * step + size - step, end)).astype(np.float64)
        rows = np.lib.stride_tricks.sliding_window_view(block, size)[::step]
        total, square, count = total + rows.sum(0), square + rows.T @ rows, count + len(rows)
    mean, kernel = total / count, kernel.astype(np.float64)
    covariance = square / count - np.outer(mean, mean)
    variance = np.einsum("ic,ij,jc->c", kernel, covariance, kernel)
    return np.stack([mean @ kernel, np.maximum(variance, 0)]).astype(np.float32)


def _installed(folder):
    """(parameters, config) of the speech network in a folder."""
    if not (Path(folder) / store.PARAMS).is_file():
        raise errors.CheckpointError(
            f"{folder}: is neither a feature ({', '.join(log_mel.FEATURES)}) nor the folder of an "
            "installed speech network; python -m swaptalk_jax.pretrained list tells which there are"
        )
    params, config = store.load_network(folder)
    if config.get("network") not in NETWORKS or "speech" not in params:
        raise errors.CheckpointError(
            f"{folder}: holds {config.get('network', 'a trained network')}, which is no speech "
            f"network ({', '.join(NETWORKS)})"
        )
    return params["speech"], config

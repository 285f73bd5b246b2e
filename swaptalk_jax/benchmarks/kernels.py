"""How much faster than XLA's own `models.kernels` and the norms are on this machine.

Each shape is one that a network has: at :tiny, or at the paper's size with images of 128 px.
"""

import functools

import flax.linen as nn
import jax
import numpy as np

from swaptalk_jax import backend
from swaptalk_jax.benchmarks.steps import seconds
from swaptalk_jax.benchmarks.turns import in_turns, spread
from swaptalk_jax.models import blocks, kernels

CALLS = 5  # of a turn
# What, where, shape of the image, output channels, stride.
CONVOLUTIONS = (
    ("few cells", "expert:tiny", (64, 2, 4, 128), 128, 1),
    ("few cells", "sync:tiny", (40, 2, 4, 64), 64, 1),
    ("stride 2", "identity:tiny", (32, 48, 48, 24), 24, 2),
    ("stride 2", "vqgan:tiny", (16, 16, 32, 48), 48, 2),
    ("stride 2", "vqgan, 128 px", (4, 64, 64, 128), 128, 2),
    ("few images", "vqgan, 128 px", (1, 32, 32, 256), 256, 1),
    ("tiles", "vqgan, 128 px", (4, 64, 64, 256), 256, 1),
    ("tiles", "vqgan, 128 px", (4, 128, 128, 128), 128, 1),
    ("upsampled", "sync:tiny", (40, 4, 8, 80), 80, 1),
    ("upsampled", "vqgan:tiny", (8, 16, 16, 96), 96, 1),
    ("upsampled", "vqgan, 128 px", (4, 64, 64, 128), 128, 1),
)
NORMS = (
    ("identity:tiny", (32, 48, 48, 24)),
    ("vqgan:tiny", (8, 32, 32, 48)),
    ("vqgan, 128 px", (4, 128, 128, 128)),
)


def tell(turns):
    """Prints XLA's time for a result and its gradients by ours, pair by pair, of each shape."""
    print(f"XLA's seconds by ours, result and gradients, {turns} turns: median (least to most)")
    for what, where, shape, width, stride in CONVOLUTIONS:
        print(_row(what, where, shape, _convolutions(what, shape, width, stride), turns))
    for where, shape in NORMS:
        print(_row("norm, swish", where, shape, _norms(shape), turns))


def _row(what, where, shape, ways, turns):
    """One line: what, where, milliseconds of ours, ratio."""
    ready = []
    for function, arguments in ways:
        compiled = backend.jit(function)
        jax.block_until_ready(compiled(*arguments))
        call = functools.partial(compiled, *arguments)
        ready.append(functools.partial(seconds, call, CALLS))
    pairs = np.array(in_turns(*ready, turns))
    ratios = pairs[:, 1] / pairs[:, 0]
    ms = np.median(pairs[:, 0]) * 1e3
    return f"  {what:12} {where:14} {shape!s:20} {ms:8.2f} ms   {spread(ratios)}"


def _convolutions(what, shape, width, stride):
    """Ours and XLA's: [(function, arguments)]."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal(shape, np.float32)
    kernel = rng.standard_normal((3, 3, shape[-1], width), np.float32)
    enlarged = what == "upsampled"
    own = kernels.upsampled_conv if enlarged else kernels.conv
    options = {"dimension_numbers": kernels.LAYOUT}

    def ours(x, kernel):
        return own(x, kernel, (stride, stride), "SAME", **options)

    def xla(x, kernel):
        image = kernels.upsample(x) if enlarged else x
        return jax.lax.conv_general_dilated(image, kernel, (stride, stride), "SAME", **options)

    return [_with_gradients(way, x, kernel) for way in (ours, xla)]


def _norms(shape):
    """Ours and Flax's, as `_convolutions`."""
    rng = np.random.default_rng(0)
    x, weights = rng.standard_normal(shape, np.float32), np.ones(shape[-1], np.float32)
    groups = blocks.group_count(shape[-1])

    def applied(norm):
        return lambda x, scale: nn.swish(
            norm.apply({"params": {"scale": scale, "bias": 0.0 * scale}}, x)
        )

    norms = blocks.GroupNorm(groups, np.float32), nn.GroupNorm(groups, epsilon=1e-6)
    return [_with_gradients(applied(norm), x, weights) for norm in norms]


def _with_gradients(way, *arguments):
    """(function of `arguments` and a cotangent -> (result, gradients), its arguments)."""

    def function(cotangent, *arguments):
        result, back = jax.vjp(way, *arguments)
        return result, back(cotangent)

    shape = jax.eval_shape(way, *arguments).shape
    return function, (np.ones(shape, np.float32), *arguments)

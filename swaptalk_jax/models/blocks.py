"""Convolutional pieces that several networks share (after VQGAN's and latent diffusion's code).

Images and grids are [b h w c]. Parameters are float32, `dtype` is the dtype of the computation;
normalisation statistics and softmax are float32 whatever `dtype` says.
"""

import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from swaptalk_jax import errors
from swaptalk_jax.models import kernels
from swaptalk_jax.models.attention import attention


def remat(module, wanted):
    """The module's class; `wanted`: one that computes activations again on the way back.

    wanted: True: results of convolutions and dense layers are kept, which are dear to compute;
    norms, activations and attention's scores, which are many and cheap, are not. "all": nothing is
    kept. Give its instances names, as such a class has another one, and parameters are named by it.
    """
    return nn.remat(module, policy=None if wanted == "all" else _dear) if wanted else module


def _dear(primitive, *_, **options):
    """Whether remat keeps what a primitive made: convolutions, products without batch axes."""
    if primitive.name == "conv_general_dilated" or options.get("name") == kernels.NAME:
        return True
    return primitive.name == "dot_general" and not options["dimension_numbers"][1][0]


def group_count(channels):
    """Groups for GroupNorm: 32 from 128 channels on, fewer below so that a group keeps 4 channels.

    A group of one channel would be instance norm, which erases each channel's mean over the image.
    """
    return math.gcd(32, max(channels // 4, 1))


class Norm(nn.Module):
    """GroupNorm, eps 1e-6 as in VQGAN. [... c] -> [... c] of `dtype`.

    groups: how many; 0: `group_count` of the channels. Raises NetworkError where they don't divide
    the channels.
    """

    dtype: jnp.dtype = jnp.float32
    groups: int = 0

    @nn.compact
    def __call__(self, x):
        groups = self.groups or group_count(x.shape[-1])
        if x.shape[-1] % groups:
            raise errors.NetworkError(
                f"groups = {groups} do not divide {x.shape[-1]} channels; set groups to a divisor,"
                " or to 0: as many as leave 4 channels each"
            )
        return GroupNorm(groups, self.dtype, name="norm")(x)


class GroupNorm(nn.Module):
    """What nn.GroupNorm computes, with sums over the places of each channel: [b ... c] -> the same.

    Two sums a channel, then one factor and one summand a channel. nn.GroupNorm splits the channels'
    axis into groups first, which leaves vectors too short for a CPU (half the time, forward and
    backward together).
    """

    groups: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x):
        b, c = x.shape[0], x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (c,))
        bias = self.param("bias", nn.initializers.zeros, (c,))
        places = x.astype(jnp.float32).reshape(b, -1, c)
        size = places.shape[1] * c // self.groups

        def mean(values):
            total = jnp.sum(values, axis=1).reshape(b, self.groups, -1).sum(-1) / size
            return jnp.repeat(total, c // self.groups, axis=1)

        centre = mean(places)
        variance = jnp.maximum(mean(jnp.square(places)) - jnp.square(centre), 0.0)
        factor = jax.lax.rsqrt(variance + 1e-6) * scale
        summand = bias - centre * factor
        normal = places * factor[:, None] + summand[:, None]
        return normal.astype(self.dtype).reshape(x.shape)


class Conv(nn.Conv):
    """nn.Conv whose convolutions are those of `kernels` (same parameters, same results)."""

    conv_general_dilated: Callable = kernels.conv


def check_halving(network, x, times):
    """Raises NetworkError where height or width of x [... h w c] cannot be halved so many times."""
    h, w = x.shape[-3:-1]
    if h % 2**times or w % 2**times:
        raise errors.NetworkError(
            f"{network}: its grid of {h}x{w} cells cannot be halved {times} times; take fewer"
            f" levels or a grid whose sides are multiples of {2**times}"
        )


class ResidualBlock(nn.Module):
    """(norm, swish, 3x3 convolution) twice, plus the input. [b h w c] -> [b h w width].

    With `zero_init` the second convolution starts at zero, so the block starts as its shortcut
    (latent diffusion does, VQGAN does not). groups: of the norms, see `Norm`.
    """

    width: int
    zero_init: bool = False
    dtype: jnp.dtype = jnp.float32
    groups: int = 0

    @nn.compact
    def __call__(self, x):
        last_init = nn.initializers.zeros if self.zero_init else nn.initializers.lecun_normal()
        hidden = nn.swish(Norm(self.dtype, self.groups, name="norm1")(x))
        hidden = Conv(self.width, (3, 3), dtype=self.dtype, name="conv1")(hidden)
        hidden = nn.swish(Norm(self.dtype, self.groups, name="norm2")(hidden))
        hidden = Conv(self.width, (3, 3), kernel_init=last_init, dtype=self.dtype, name="conv2")(
            hidden
        )
        if x.shape[-1] != self.width:
            x = nn.Dense(self.width, dtype=self.dtype, name="shortcut")(x)  # a 1x1 convolution
        return x + hidden


class SelfAttention(nn.Module):
    """Pre-norm self-attention over all grid positions, plus the input. [b h w c] -> [b h w c]."""

    heads: int = 1
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x):
        b, h, w, c = x.shape
        tokens = Norm(self.dtype, name="norm")(x).reshape(b, h * w, c)
        attended = attention(self.heads, self.dtype, name="attention")(tokens)
        return x + attended.reshape(b, h, w, c)


class Downsample(nn.Module):
    """3x3 convolution of stride 2. [b h w c] -> [b h/2 w/2 width]."""

    width: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x):
        return Conv(self.width, (3, 3), strides=2, dtype=self.dtype, name="conv")(x)


class Upsample(nn.Module):
    """Nearest-neighbour x2, then a 3x3 convolution. [b h w c] -> [b 2h 2w width]."""

    width: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x):
        conv = nn.Conv(
            self.width,
            (3, 3),
            dtype=self.dtype,
            conv_general_dilated=kernels.upsampled_conv,
            name="conv",
        )
        return conv(x)


def cut(image, box, size):
    """The part `box` of crops [b S S c] as float32 [b size size c].

    box = (y0, x0, y1, x1) in the crop's sides, inside of it. Static slice, anti-aliased bilinear
    resize.
    """
    b, height, width, c = image.shape
    y0, x0, y1, x1 = (
        round(edge * side) for edge, side in zip(box, (height, width, height, width), strict=True)
    )
    face = image.astype(jnp.float32)[:, y0:y1, x0:x1]
    shape = (b, size, size, c)
    return face if face.shape == shape else jax.image.resize(face, shape, "linear", antialias=True)


def normalised(embedding):
    """[b e] -> of length 1."""
    return embedding * jax.lax.rsqrt(jnp.sum(embedding**2, axis=-1, keepdims=True) + 1e-12)

"""Face recogniser for the identity losses (paper eq. 5, 9): ArcFace's iResNet.

One departure: GroupNorm stands where iResNet has BatchNorm, because no network here keeps mutable
state. Published iResNet weights therefore do not fit this module, but models/public/iresnet.py.
"""

import flax.linen as nn
import jax.numpy as jnp

from swaptalk_jax.models.blocks import Conv, Norm, cut, normalised, remat


class ImprovedUnit(nn.Module):
    """ArcFace's improved residual unit: norm, conv, norm, PReLU, conv of `stride`, norm."""

    width: int
    stride: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x):
        """[b h w c] -> [b h/stride w/stride width]."""
        hidden = Norm(self.dtype, name="norm1")(x)
        hidden = _conv(self.width, 1, self.dtype, "conv1")(hidden)
        hidden = nn.PReLU(negative_slope_init=0.25, name="prelu")(
            Norm(self.dtype, name="norm2")(hidden)
        )
        hidden = _conv(self.width, self.stride, self.dtype, "conv2")(hidden)
        hidden = Norm(self.dtype, name="norm3")(hidden)
        if self.stride != 1 or x.shape[-1] != self.width:
            x = x[
                :, :: self.stride, :: self.stride
            ]  # a strided 1x1 convolution, as slice and Dense
            x = nn.Dense(self.width, use_bias=False, dtype=self.dtype, name="shortcut")(x)
            x = Norm(self.dtype, name="shortcut_norm")(x)
        return x + hidden


class Recogniser(nn.Module):
    """Face crop [b S S 3] in [-1, 1] -> L2-normalised identity embedding float32 [b embed_dim].

    The part `box` = (y0, x0, y1, x1), fractions of the FFHQ crop, is cut out and resized to
    `input_size`, since a recogniser should not look at hair and background. The default is about
    what ArcFace's alignment shows: eyes are .25 of the side apart in FFHQ crops, .31 in ArcFace's.
    Each stage halves the grid; `input_size` should be at least 2 ** (len(stages) + 1).
    remat: what each unit computes again on the way back, see blocks.remat.
    """

    stages: tuple[int, ...] = (3, 4, 14, 3)
    width: int = 64
    embed_dim: int = 512
    input_size: int = 112
    box: tuple[float, float, float, float] = (0.1, 0.1, 0.9, 0.9)
    remat: bool | str = False
    dtype: jnp.dtype = jnp.float32

    def cut(self, image):
        """The part of crops [b S S 3] that the network looks at: [b input_size input_size 3]."""
        return cut(image, self.box, self.input_size)

    @nn.compact
    def __call__(self, image, cut=True):
        """image: the whole crop; cut=False: what `cut` has made of it already."""
        x = self.cut(image) if cut else image
        x = Conv(self.width, (3, 3), use_bias=False, dtype=self.dtype, name="stem")(x)
        x = nn.PReLU(negative_slope_init=0.25, name="stem_prelu")(
            Norm(self.dtype, name="stem_norm")(x)
        )
        unit_type = remat(ImprovedUnit, self.remat)
        for stage, units in enumerate(self.stages):
            for unit in range(units):
                x = unit_type(
                    self.width * 2**stage,
                    stride=2 if unit == 0 else 1,
                    dtype=self.dtype,
                    name=f"stage{stage}_unit{unit}",
                )(x)
        x = Norm(self.dtype, name="norm_out")(x).reshape(x.shape[0], -1)
        return normalised(nn.Dense(self.embed_dim, dtype=jnp.float32, name="embedding")(x))


def _conv(width, stride, dtype, name):
    """3x3 convolution as in iResNet: no bias, padding 1 on each side."""
    padding = ((1, 1), (1, 1))
    return Conv(width, (3, 3), stride, padding, use_bias=False, dtype=dtype, name=name)

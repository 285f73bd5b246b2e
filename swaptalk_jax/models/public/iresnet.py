"""ArcFace's iResNet (Deng et al., 2019) for public weights: frozen, its BatchNorms are constants.

A BatchNorm behind a convolution is folded into it when the weights are read; the one before each
unit's padded convolution cannot be (the padding is not normalised) and stays as scale and shift.
"""

import flax.linen as nn
import jax.numpy as jnp

from swaptalk_jax.models.blocks import cut, normalised
from swaptalk_jax.models.public.folded import FoldedConv

# What ArcFace's 112 px template shows of an FFHQ crop: y0, x0, y1, x1 in its sides. The mean, over
# 303 faces of 22 people (photos, GRID, HDTF, phone clips; each person weighs the same), of the
# similarity that best maps five points (eyes' means, nose tip and mouth corners of 68 landmarks)
# onto the template: side .760 +- .021, centre (.497, .496) +- (.005, .008), turned by 0.2 +- 0.3
# degrees, so that a box does.
ARCFACE_BOX = (0.116, 0.117, 0.876, 0.877)


class FrozenUnit(nn.Module):
    """ArcFace's improved residual unit: norm, conv, PReLU, conv of `stride`, plus the shortcut."""

    width: int
    stride: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x):
        """[b h w c] -> [b h/stride w/stride width]."""
        scale = self.param("scale", nn.initializers.ones, x.shape[-1:])
        shift = self.param("shift", nn.initializers.zeros, x.shape[-1:])
        hidden = x * scale.astype(self.dtype) + shift.astype(self.dtype)
        hidden = FoldedConv(self.width, dtype=self.dtype, name="conv1")(hidden)
        hidden = FoldedConv(
            self.width, stride=self.stride, prelu=False, dtype=self.dtype, name="conv2"
        )(hidden)
        if self.stride != 1 or x.shape[-1] != self.width:
            x = FoldedConv(
                self.width, 1, self.stride, prelu=False, dtype=self.dtype, name="shortcut"
            )(x)
        return x + hidden


class IResNet(nn.Module):
    """Face crop [b S S 3] in [-1, 1] -> L2-normalised identity embedding float32 [b embed_dim].

    An FFHQ crop, RGB, of which `box` is cut out (recogniser.cut); `input_size` a multiple of 16.
    stages: units of each stage, (3, 4, 14, 3) is R50 and (3, 13, 30, 3) R100.
    """

    stages: tuple[int, ...] = (3, 4, 14, 3)
    width: int = 64
    embed_dim: int = 512
    input_size: int = 112
    box: tuple[float, float, float, float] = ARCFACE_BOX
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, image):
        x = cut(image, self.box, self.input_size)
        x = FoldedConv(self.width, dtype=self.dtype, name="stem")(x)
        for stage, units in enumerate(self.stages):
            for unit in range(units):
                x = FrozenUnit(
                    self.width * 2**stage,
                    stride=2 if unit == 0 else 1,
                    dtype=self.dtype,
                    name=f"stage{stage}_unit{unit}",
                )(x)
        x = x.reshape(len(x), -1).astype(jnp.float32)
        return normalised(nn.Dense(self.embed_dim, name="embedding")(x))

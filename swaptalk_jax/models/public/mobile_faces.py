"""Small public face recognisers, frozen: SFace (Zhong et al., 2021) and MobileFaceNet (Chen, 2018).

Their BatchNorms are folded into the convolutions, their range of pixels into the first one.
"""

import functools

import flax.linen as nn
import jax.numpy as jnp

from swaptalk_jax.models.blocks import cut, normalised
from swaptalk_jax.models.public.folded import FoldedConv
from swaptalk_jax.models.public.iresnet import ARCFACE_BOX


class SFace(nn.Module):
    """Face crop [b S S 3] in [-1, 1] -> L2-normalised identity embedding float32 [b embed_dim].

    MobileNet of pairs (3x3 depthwise of `stride`, 1x1 to `width`); blocks: their (width, stride).
    An FFHQ crop, RGB, of which `box` is cut out (recogniser.cut); `input_size` a multiple of all
    strides' product.
    """

    stem: int = 32
    blocks: tuple[tuple[int, int], ...] = (
        (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1), (512, 1), (512, 1),
        (512, 1), (512, 1), (1024, 2), (1024, 1),
    )  # fmt: skip
    embed_dim: int = 128
    input_size: int = 112
    box: tuple[float, float, float, float] = ARCFACE_BOX
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, image):
        conv = functools.partial(FoldedConv, dtype=self.dtype)
        x = conv(self.stem, name="stem")(cut(image, self.box, self.input_size))
        for i, (width, stride) in enumerate(self.blocks):
            depthwise = conv(x.shape[-1], stride=stride, depthwise=True, name=f"block{i}_depthwise")
            x = conv(width, 1, name=f"block{i}_pointwise")(depthwise(x))
        x = x.reshape(len(x), -1).astype(jnp.float32)
        return normalised(nn.Dense(self.embed_dim, name="embedding")(x))


class MobileFaceNet(nn.Module):
    """Face crop [b S S 3] in [-1, 1] -> L2-normalised identity embedding float32 [b embed_dim].

    A stem of stride 2 with a pair (3x3 depthwise, 1x1), inverted residual blocks of (hidden,
    width, stride), 1x1 to `features`, and a weighted sum over the grid for each feature. Padding
    is TensorFlow's. An FFHQ crop, RGB, of which `box` is cut out (recogniser.cut); `input_size`
    a multiple of twice all strides' product.
    """

    stem: int = 64
    blocks: tuple[tuple[int, int, int], ...] = (
        *((128, 64, stride) for stride in (2, 1, 1, 1, 1)),
        *((256, 128, stride) for stride in (2, 1, 1, 1, 1, 1, 1)),
        *((512, 128, 2), (256, 128, 1), (256, 128, 1)),
    )
    features: int = 512
    embed_dim: int = 192
    input_size: int = 112
    box: tuple[float, float, float, float] = ARCFACE_BOX
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, image):
        conv = functools.partial(FoldedConv, dtype=self.dtype)
        x = cut(image, self.box, self.input_size)
        x = conv(self.stem, stride=2, lead=0, name="stem")(x)
        x = conv(self.stem, depthwise=True, name="stem_depthwise")(x)
        x = conv(self.stem, 1, prelu=False, name="stem_pointwise")(x)
        for i, (width, out, stride) in enumerate(self.blocks):
            hidden = conv(width, 1, name=f"block{i}_expand")(x)
            lead = 1 if stride == 1 else 0
            hidden = conv(
                width, stride=stride, lead=lead, depthwise=True, name=f"block{i}_depthwise"
            )(hidden)
            hidden = conv(out, 1, prelu=False, name=f"block{i}_project")(hidden)
            x = x + hidden if stride == 1 and x.shape[-1] == out else hidden
        x = conv(self.features, 1, name="features")(x).astype(jnp.float32)
        weights = self.param("grid", nn.initializers.lecun_normal(), x.shape[1:])
        x = jnp.einsum("bhwc,hwc->bc", x, weights)
        return normalised(nn.Dense(self.embed_dim, name="embedding")(x))

"""PatchGAN discriminator (pix2pix, as VQGAN uses it; paper eq. 6), GroupNorm for BatchNorm."""

import flax.linen as nn
import jax.numpy as jnp

from swaptalk_jax.models.blocks import Conv, Norm


class PatchDiscriminator(nn.Module):
    """image [b H W 3] in [-1, 1] -> float32 logits [b h w 1], one a patch (real is high).

    `layers` 4x4 convolutions of stride 2 whose widths double up to 8 * width, then two of stride 1.
    With 3 layers a logit sees 70x70 px, and 512 px give 62x62 logits.
    """

    width: int = 64
    layers: int = 3
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, image):
        x = nn.leaky_relu(self._conv(self.width, 2, "conv0")(image), 0.2)
        for layer in range(1, self.layers + 1):
            channels = self.width * min(2**layer, 8)
            x = self._conv(channels, 2 if layer < self.layers else 1, f"conv{layer}")(x)
            x = nn.leaky_relu(Norm(self.dtype, name=f"norm{layer}")(x), 0.2)
        return self._conv(1, 1, "logits", jnp.float32)(x)

    def _conv(self, channels, stride, name, dtype=None):
        padding = ((1, 1), (1, 1))
        return Conv(
            channels,
            (4, 4),
            stride,
            padding,
            kernel_init=nn.initializers.normal(0.02),  # as pix2pix
            dtype=dtype or self.dtype,
            name=name,
        )

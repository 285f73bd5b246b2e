"""Convolutions with folded batch norms, as public networks have them."""

import flax.linen as nn
import jax
import jax.numpy as jnp


class FoldedConv(nn.Module):
    """Convolution, bias, PReLU with a slope a channel: [b h w c] -> [b h/stride w/stride width].

    Zero padding: `lead` rows before the image, as many behind as the output's size needs. 1 is
    usual; TensorFlow's SAME has 0 where stride is 2 and the image's side even.
    """

    width: int
    size: int = 3
    stride: int = 1
    lead: int = 1
    depthwise: bool = False  # then width is the input's
    prelu: bool = True
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x):
        shape = (self.size, self.size, 1 if self.depthwise else x.shape[-1], self.width)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.width,))
        x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
        if self.size == 1:
            x = x[:, :: self.stride, :: self.stride] @ kernel[0, 0]
        else:
            pad = (self.lead, self.size - 1 - self.lead)
            x = (_depthwise if self.depthwise else _convolution)(x, kernel, self.stride, pad)
        x = x + bias.astype(self.dtype)
        if not self.prelu:
            return x
        slope = self.param("slope", nn.initializers.constant(0.25), (self.width,))
        return jnp.where(x >= 0, x, slope.astype(self.dtype) * x)


def _convolution(x, kernel, stride, pad):
    numbers = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), (pad, pad), dimension_numbers=numbers
    )


def _depthwise(x, kernel, stride, pad):
    """A sum of shifted images; the image's sides are multiples of stride.

    XLA's grouped convolution takes 8 to 65 times as long on CPUs (with gradient 9 to 17). Rows are
    dropped after the sum, since the gradient of strided slices is slow too. Without the barriers,
    XLA computes what feeds the sum once for each of its terms: SFace takes twice as long.
    """
    b, h, w, c = x.shape
    x = jnp.pad(x, ((0, 0), pad, pad, (0, 0)))
    offsets = range(kernel.shape[0])
    x = jax.lax.optimization_barrier(x)
    x = sum(x[:, i : i + h, j : j + w] * kernel[i, j, 0] for i in offsets for j in offsets)
    x = jax.lax.optimization_barrier(x)
    if stride == 1:
        return x
    return x.reshape(b, h // stride, stride, w // stride, stride, c)[:, :, 0, :, 0]

"""The pre-norm transformer block of speech networks."""

import functools

import flax.linen as nn
import jax.numpy as jnp

from swaptalk_jax.models.attention import attention

gelu = functools.partial(nn.gelu, approximate=False)


class Block(nn.Module):
    """Transformer block with exact GELU. [b n d] -> [b n d].

    post_norm: the norms come after the sums (HuBERT base) instead of before the layers.
    known: bool [b n], tokens that others may attend to; None: all.
    """

    heads: int
    ffn_width: int
    post_norm: bool = False
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, known=None):
        attend = attention(self.heads, self.dtype, name="attention")
        norm1 = nn.LayerNorm(1e-5, dtype=self.dtype, name="norm1")
        norm2 = nn.LayerNorm(1e-5, dtype=self.dtype, name="norm2")
        mask = None if known is None else known[:, None, None, :]

        def ffn(x):
            hidden = gelu(nn.Dense(self.ffn_width, dtype=self.dtype, name="ffn1")(x))
            return nn.Dense(x.shape[-1], dtype=self.dtype, name="ffn2")(hidden)

        if self.post_norm:
            x = norm1(x + attend(x, mask=mask))
            return norm2(x + ffn(x))
        x = x + attend(norm1(x), mask=mask)
        return x + ffn(norm2(x))

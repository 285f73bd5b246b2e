"""Lip transform: the UNet of latent diffusion without its time input (paper eq. 12, Figure 2d).

One pass from the (warped) lower half-face of the reference and the sound around a frame to the
lower half-face that says it.
"""

import flax.linen as nn
import jax.numpy as jnp

from swaptalk_jax import errors
from swaptalk_jax.models.attention import attention
from swaptalk_jax.models.blocks import (
    Conv,
    Downsample,
    Norm,
    ResidualBlock,
    Upsample,
    check_halving,
    remat,
)


class TransformerBlock(nn.Module):
    """Latent diffusion's spatial transformer of depth 1, plus the input. [b h w c] -> [b h w c].

    Pre-norm self-attention over positions, cross-attention to `context` [b n k], GEGLU layers.
    The output projection starts at zero, so the block starts as identity. groups: see blocks.Norm.
    """

    heads: int
    dtype: jnp.dtype = jnp.float32
    groups: int = 0

    @nn.compact
    def __call__(self, grid, context):
        b, h, w, c = grid.shape
        x = Norm(self.dtype, self.groups, name="norm")(grid).reshape(b, h * w, c)
        x = nn.Dense(c, dtype=self.dtype, name="project_in")(x)
        hidden = self._layer_norm("norm1")(x)
        x = x + self._attention("self_attention")(hidden)
        hidden = self._layer_norm("norm2")(x)
        x = x + self._attention("cross_attention")(hidden, context)
        hidden = self._layer_norm("norm3")(x)
        hidden, gate = jnp.split(
            nn.Dense(8 * c, dtype=self.dtype, name="geglu")(hidden), 2, axis=-1
        )
        x = x + nn.Dense(c, dtype=self.dtype, name="ffn_out")(hidden * nn.gelu(gate))
        x = nn.Dense(c, kernel_init=nn.initializers.zeros, dtype=self.dtype, name="project_out")(x)
        return grid + x.reshape(b, h, w, c)

    def _layer_norm(self, name):
        return nn.LayerNorm(dtype=self.dtype, name=name)

    def _attention(self, name):
        return attention(self.heads, self.dtype, use_bias=False, name=name)


class LipUNet(nn.Module):
    """(x [b h w d], audio [b n c]) -> float32 [b h w embed_dim].

    width, multipliers: channels of level i are width * multipliers[i]; h and w must be divisible by
        2 ** (len(multipliers) - 1).
    blocks: residual blocks a level on the way down, one more on the way up.
    attention_levels: down levels with a transformer block after each residual block, mirrored on
        the way up; the middle always has one. Paper: the last two down and the first two up.
    context_width: width of the audio context, a linear layer of the features plus a learned
        position embedding, which tells the order of the n tokens (n is fixed at init).
    groups: of every norm; 32 as in latent diffusion. 0: as many as leave 4 channels each.
    residual: False in the paper: the last convolution, which starts at zero, gives the output.
        True: the output is x (1 + scale) + shift with scale and shift [b h w embed_dim] from it.
        Training then starts at "leave the lips as they are", and a cell is replaced by scale = -1
        whatever was there. Needs d == embed_dim.
    remat: what each block computes again on the way back, see blocks.remat.
    Raises NetworkError where h, w, d or the groups contradict the fields.
    """

    width: int = 192
    multipliers: tuple[int, ...] = (1, 2, 4)
    blocks: int = 2
    attention_levels: tuple[int, ...] = (1, 2)
    heads: int = 8
    context_width: int = 512
    embed_dim: int = 256
    groups: int = 32
    residual: bool = False
    remat: bool | str = False
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, audio):
        self._check(x)
        start, context = x, self._context(audio)
        x = Conv(self.width, (3, 3), dtype=self.dtype, name="conv_in")(x)
        x, skips = self._down(x, context)
        channels = x.shape[-1]
        x = self._block(channels, "middle_block0")(x)
        x = self._transformer("middle_transformer")(x, context)
        x = self._block(channels, "middle_block1")(x)
        x = self._up(x, skips, context)
        x = nn.swish(Norm(self.dtype, self.groups, name="norm_out")(x))
        x = Conv(
            2 * self.embed_dim if self.residual else self.embed_dim,
            (3, 3),
            kernel_init=nn.initializers.zeros,
            dtype=jnp.float32,
            name="conv_out",
        )(x)
        if self.residual:
            scale, shift = jnp.split(x, 2, axis=-1)
            x = start * (1.0 + scale) + shift
        return x

    def _check(self, x):
        check_halving("LipUNet", x, len(self.multipliers) - 1)
        if self.residual and x.shape[-1] != self.embed_dim:
            raise errors.NetworkError(
                f"LipUNet: residual needs embed_dim = {x.shape[-1]}, the width of the"
                f" VQ-embeddings; it is {self.embed_dim}"
            )
        if self.attention_levels and max(self.attention_levels) >= len(self.multipliers):
            raise errors.NetworkError(
                f"LipUNet: attention_levels = {tuple(self.attention_levels)}, but multipliers name"
                f" the levels 0 to {len(self.multipliers) - 1}"
            )

    def _context(self, audio):
        """[b n c] -> [b n context_width]."""
        position = self.param(
            "position", nn.initializers.normal(0.02), (audio.shape[1], self.context_width)
        )
        tokens = nn.Dense(self.context_width, dtype=self.dtype, name="audio")(audio)
        return nn.LayerNorm(dtype=self.dtype, name="audio_norm")(tokens + position)

    def _block(self, channels, name):
        block = remat(ResidualBlock, self.remat)
        return block(channels, True, self.dtype, self.groups, name=name)

    def _transformer(self, name):
        return remat(TransformerBlock, self.remat)(self.heads, self.dtype, self.groups, name=name)

    def _down(self, x, context):
        """-> (x of the deepest level, one skip for conv_in and for each block and downsampling)."""
        skips = [x]
        for level, multiplier in enumerate(self.multipliers):
            channels = self.width * multiplier
            for i in range(self.blocks):
                x = self._block(channels, f"down{level}_block{i}")(x)
                if level in self.attention_levels:
                    name = f"down{level}_transformer{i}"
                    x = self._transformer(name)(x, context)
                skips.append(x)
            if level < len(self.multipliers) - 1:
                x = Downsample(channels, self.dtype, name=f"down{level}_downsample")(x)
                skips.append(x)
        return x, skips

    def _up(self, x, skips, context):
        """Mirror of `_down`: every block first takes the last skip that is left."""
        for level in reversed(range(len(self.multipliers))):
            channels = self.width * self.multipliers[level]
            for i in range(self.blocks + 1):
                x = jnp.concatenate([x, skips.pop()], axis=-1)
                x = self._block(channels, f"up{level}_block{i}")(x)
                if level in self.attention_levels:
                    name = f"up{level}_transformer{i}"
                    x = self._transformer(name)(x, context)
            if level > 0:
                x = Upsample(channels, self.dtype, name=f"up{level}_upsample")(x)
        return x

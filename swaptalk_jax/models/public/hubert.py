"""HuBERT (Hsu et al. 2021), base, large and xlarge: waveform to hidden states at 50 a second."""

import flax.linen as nn
import jax.numpy as jnp

from swaptalk_jax.models.public.transformer import Block, gelu

CHANNELS = 512  # of the convolutions
KERNELS = (10, 3, 3, 3, 3, 2, 2)
STRIDES = (5, 2, 2, 2, 2, 2, 2)  # 320 samples a token; a token sees 400
POSITION_KERNEL, POSITION_GROUPS = 128, 16


class Hubert(nn.Module):
    """(samples [b n] at 16 kHz, moments [b 2 512], known bool [b t]) -> float32 [b t width].

    t = floor((n - 80) / 320); token k sees samples [320 k, 320 k + 400). Samples are those of a
    sound of mean 0 and variance 1. Base: 768 wide, 12 heads, 12 layers; large 1024, 16, 24; xlarge
    1280, 16, 48.
    stable: what all but base have: convolutions with biases and a LayerNorm each, norms before the
    layers of a block instead of after.
    moments: base normalises each channel of its first convolution over the whole sound. Its mean
    and variance [b 2 512] are an input, so that a piece of a sound gives what the whole sound
    would; see `first_moments` of swaptalk_jax.sound. Not used where `stable`.
    known: False for tokens beyond the end: they count as absent, as in a shorter sound.
    output: which hidden state is handed out. None: the last; k: the one after k blocks.
    """

    width: int = 768
    heads: int = 12
    layers: int = 12
    ffn_width: int = 3072
    stable: bool = False
    output: int | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, samples, moments, known):
        x = self._convolutions(samples[..., None].astype(self.dtype), moments)
        x = nn.LayerNorm(1e-5, dtype=self.dtype, name="features_norm")(x)
        x = nn.Dense(self.width, dtype=self.dtype, name="projection")(x)
        x = jnp.where(known[..., None], x, 0)
        x = x + self._positions(x)
        norm = nn.LayerNorm(1e-5, dtype=self.dtype, name="norm")
        x = x if self.stable else norm(x)
        for i in range(self.layers if self.output is None else self.output):
            x = Block(
                self.heads, self.ffn_width, not self.stable, dtype=self.dtype, name=f"block_{i}"
            )(x, known)
        if self.stable and self.output is None:
            x = norm(x)
        return x.astype(jnp.float32)

    def _convolutions(self, x, moments):
        """[b n 1] -> [b t 512]."""
        for i, (kernel, stride) in enumerate(zip(KERNELS, STRIDES, strict=True)):
            x = nn.Conv(
                CHANNELS, (kernel,), stride, padding="VALID", use_bias=self.stable,
                dtype=self.dtype, name=f"conv_{i}",
            )(x)  # fmt: skip
            if self.stable:
                x = nn.LayerNorm(1e-5, dtype=self.dtype, name=f"conv_norm_{i}")(x)
            elif i == 0:
                x = ChannelNorm(name="conv_norm_0")(x, moments).astype(self.dtype)
            x = gelu(x)
        return x

    def _positions(self, x):
        """A convolution over 128 tokens that tells each where it stands. [b t d] -> [b t d]."""
        half = POSITION_KERNEL // 2
        return gelu(
            nn.Conv(
                self.width, (POSITION_KERNEL,), padding=((half, half - 1),),
                feature_group_count=POSITION_GROUPS, dtype=self.dtype, name="position",
            )(x)
        )  # fmt: skip


class ChannelNorm(nn.Module):
    """(x [b n c], moments [b 2 c]: mean, variance) -> float32 [b n c], scaled and shifted."""

    @nn.compact
    def __call__(self, x, moments):
        scale = self.param("scale", nn.initializers.ones, x.shape[-1:])
        bias = self.param("bias", nn.initializers.zeros, x.shape[-1:])
        mean, variance = moments[:, None, 0], moments[:, None, 1]
        return (x - mean) * (scale * jnp.reciprocal(jnp.sqrt(variance + 1e-5))) + bias

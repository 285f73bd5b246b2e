"""Whisper's audio encoder (Radford et al. 2022), and the transformer block that HuBERT shares."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from swaptalk_jax.models.public.transformer import Block, gelu


class WhisperEncoder(nn.Module):
    """log-mel [b 2t mels] of audio.whisper_mel -> hidden states float32 [b t width], t <= 1500.

    Token k is centred on the spectrum's window 2k, so there are 50 a second. Sizes: tiny 384 wide,
    6 heads, 4 layers; base 512, 8, 6; small 768, 12, 12; medium 1024, 16, 24; large 1280, 20, 32;
    80 mels, 128 from large-v3 on.
    output: which hidden state is handed out. None: the last, after the final LayerNorm; k: the
    one after k blocks, 0 being the convolutions' output with positions. Later blocks don't run.
    """

    mels: int = 80
    width: int = 384
    heads: int = 6
    layers: int = 4
    output: int | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, mel):
        x = mel.astype(self.dtype)
        # Padding is 1 on both sides: "SAME" would put both zeros of stride 2 on the right.
        x = gelu(nn.Conv(self.width, (3,), padding=1, dtype=self.dtype, name="conv1")(x))
        x = gelu(nn.Conv(self.width, (3,), 2, padding=1, dtype=self.dtype, name="conv2")(x))
        x = x + jnp.asarray(positions(x.shape[1], self.width), self.dtype)
        last = self.layers if self.output is None else self.output
        for i in range(last):
            x = Block(self.heads, 4 * self.width, dtype=self.dtype, name=f"block_{i}")(x)
        if self.output is None:
            x = nn.LayerNorm(1e-5, dtype=self.dtype, name="norm")(x)
        return x.astype(jnp.float32)


def positions(length, width):
    """Whisper's sinusoids: float32 [length width], sines in the first half, cosines in the rest.

    Rounded to float32 where the original rounds: at token 1500 that turns angles by up to 1e-4.
    """
    exponent = np.float32(-np.log(10000) / (width // 2 - 1)) * np.arange(width // 2, dtype="f4")
    scale = np.exp(exponent.astype(np.float64)).astype(np.float32)
    angles = (np.arange(length, dtype=np.float32)[:, None] * scale).astype(np.float64)
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)

"""VQ-lip expert: do these 5 lower half-faces and this sound belong together? (paper III-C, eq. 15)

SyncNet's idea, after Wav2Lip's expert, in the VQ-embedding space. Architecture (chosen; the paper
gives none): small residual convolution networks.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from swaptalk_jax.models.blocks import Downsample, Norm, ResidualBlock, check_halving, remat


class VideoEncoder(nn.Module):
    """E_v: lower-half embeddings [b t h w d] -> features [b embed_dim].

    Each frame is reduced by one linear layer, the frames are stacked on channels (their order is
    the motion), and residual levels halve the grid. The last grid is flattened, not averaged: where
    the lips are is half of what there is to see.
    """

    width: int
    multipliers: tuple[int, ...]
    embed_dim: int
    remat: bool | str
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, lower):
        b, t, h, w, _ = lower.shape
        x = nn.Dense(self.width, dtype=self.dtype, name="frame")(lower)
        x = jnp.moveaxis(x, 1, 3).reshape(b, h, w, t * self.width)
        x = nn.Dense(self.width * self.multipliers[0], dtype=self.dtype, name="frames")(x)
        block = remat(ResidualBlock, self.remat)
        for level, multiplier in enumerate(self.multipliers):
            channels = self.width * multiplier
            if level > 0:
                x = Downsample(channels, self.dtype, name=f"level{level}_down")(x)
            x = block(channels, dtype=self.dtype, name=f"level{level}_block")(x)
        x = nn.swish(Norm(self.dtype, name="norm_out")(x)).reshape(b, -1)
        return nn.Dense(self.embed_dim, dtype=jnp.float32, name="embedding")(x)


class AudioEncoder(nn.Module):
    """E_a: audio features [b n c], n tokens of the same span -> features [b embed_dim]."""

    width: int
    blocks: int
    embed_dim: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, audio):
        x = nn.Dense(self.width, dtype=self.dtype, name="tokens")(audio)
        for i in range(self.blocks):
            hidden = nn.swish(Norm(self.dtype, name=f"block{i}_norm1")(x))
            hidden = nn.Conv(self.width, (3,), dtype=self.dtype, name=f"block{i}_conv1")(hidden)
            hidden = nn.swish(Norm(self.dtype, name=f"block{i}_norm2")(hidden))
            x = x + nn.Conv(self.width, (3,), dtype=self.dtype, name=f"block{i}_conv2")(hidden)
        x = nn.swish(Norm(self.dtype, name="norm_out")(x)).reshape(x.shape[0], -1)
        return nn.Dense(self.embed_dim, dtype=jnp.float32, name="embedding")(x)


class LipExpert(nn.Module):
    """(lower [b t h w d], audio [b n c]) -> (video, audio), float32 [b embed_dim] each.

    Both are non-negative with L2 norm 1, so their dot product is the cosine, in [0, 1]. A feature
    that is all zero stays zero (with zero gradient) instead of becoming NaN.
    t, h, w and n are fixed at initialisation. Raises NetworkError where h or w is no multiple of
    2 ** (levels - 1).
    remat: what each block of lips computes again on the way back, see blocks.remat.
    """

    width: int = 128
    multipliers: tuple[int, ...] = (1, 2, 4, 4)
    audio_width: int = 512
    audio_blocks: int = 2
    embed_dim: int = 512
    remat: bool | str = False
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, lower, audio):
        check_halving("LipExpert", lower, len(self.multipliers) - 1)
        video = VideoEncoder(
            self.width, self.multipliers, self.embed_dim, self.remat, self.dtype, name="video"
        )(lower)
        audio = AudioEncoder(
            self.audio_width, self.audio_blocks, self.embed_dim, self.dtype, name="audio"
        )(audio)
        return unit(nn.relu(video)), unit(nn.relu(audio))


def unit(x):
    """[b d] -> [b d] of L2 norm 1; a vector of zeros stays zero, with a finite gradient."""
    return x * jax.lax.rsqrt(jnp.sum(x**2, axis=-1, keepdims=True) + 1e-8)


def in_sync(video, audio):
    """Cosine [b] in [0, 1] of non-negative L2-normalised features [b d]."""
    return jnp.sum(video * audio, axis=-1)

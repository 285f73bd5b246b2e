"""VQGAN with one encoder, one decoder and two codebooks (paper III-A, Figure 2a).

The network is that of taming-transformers' VQGAN, without its 1x1 convolutions around the
quantiser (each is linear next to a linear 3x3 convolution, so they add nothing to the family).
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from swaptalk_jax import errors
from swaptalk_jax.models.blocks import (
    Conv,
    Downsample,
    Norm,
    ResidualBlock,
    SelfAttention,
    Upsample,
    remat,
)
from swaptalk_jax.models.latent import factor, from_patches, halves, join, to_patches


class Encoder(nn.Module):
    """Image [b h w c] -> [b h/f w/f embed_dim] float32, f = factor(multipliers)."""

    width: int
    multipliers: tuple[int, ...]
    blocks: int
    attention: bool
    embed_dim: int
    remat: bool | str
    dtype: jnp.dtype
    last: dict  # options of the last convolution

    @nn.compact
    def __call__(self, image):
        block = remat(ResidualBlock, self.remat)
        attention = remat(SelfAttention, self.remat)
        x = Conv(self.width, (3, 3), dtype=self.dtype, name="from_rgb")(image)
        for level, multiplier in enumerate(self.multipliers):
            channels = self.width * multiplier
            deepest = level == len(self.multipliers) - 1
            for i in range(self.blocks):
                x = block(channels, dtype=self.dtype, name=f"level{level}_block{i}")(x)
                if deepest and self.attention:
                    x = attention(dtype=self.dtype, name=f"level{level}_attention{i}")(x)
            if not deepest:
                x = Downsample(channels, self.dtype, name=f"level{level}_down")(x)
        x = block(channels, dtype=self.dtype, name="middle_block0")(x)
        if self.attention:
            x = attention(dtype=self.dtype, name="middle_attention")(x)
        x = block(channels, dtype=self.dtype, name="middle_block1")(x)
        x = nn.swish(Norm(self.dtype, name="norm_out")(x))
        # float32: codebook distances are, and they should not start from rounded vectors.
        return Conv(self.embed_dim, (3, 3), dtype=jnp.float32, name="to_z", **self.last)(x)


class Decoder(nn.Module):
    """The decoder without its last convolution: [b h w embed_dim] -> [b fh fw width * m0]."""

    width: int
    multipliers: tuple[int, ...]
    blocks: int
    attention: bool
    remat: bool | str
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, z):
        block = remat(ResidualBlock, self.remat)
        attention = remat(SelfAttention, self.remat)
        channels = self.width * self.multipliers[-1]
        x = Conv(channels, (3, 3), dtype=self.dtype, name="from_z")(z)
        x = block(channels, dtype=self.dtype, name="middle_block0")(x)
        if self.attention:
            x = attention(dtype=self.dtype, name="middle_attention")(x)
        x = block(channels, dtype=self.dtype, name="middle_block1")(x)
        for level in reversed(range(len(self.multipliers))):
            channels = self.width * self.multipliers[level]
            for i in range(self.blocks):
                x = block(channels, dtype=self.dtype, name=f"level{level}_block{i}")(x)
                if self.attention and level == len(self.multipliers) - 1:
                    x = attention(dtype=self.dtype, name=f"level{level}_attention{i}")(x)
            if level > 0:
                x = Upsample(channels, self.dtype, name=f"level{level}_up")(x)
        return nn.swish(Norm(self.dtype, name="norm_out")(x))


class VQGAN(nn.Module):
    """Upper and lower half of a face are encoded apart, quantised apart and decoded together.

    Images are float32 [b H W 3] in [-1, 1], H a multiple of 2f, W of f, with
    f = factor(multipliers, patch). Grids are h = H/f by w = W/f; rows [:h/2] belong to
    `codebook_upper` (C^U), rows [h/2:] to `codebook_lower` (C^B).
    Parameters: encoder, decoder, to_rgb, codebook_upper and codebook_lower [depth*codes embed_dim].
    Codes are [b h w*depth]: those of a cell stand side by side.
    Codebooks start uniform in +-1/codes, as in VQGAN: far too near to each other to stay in use,
    so training has to restart unused codes from encoder outputs.

    width: channels at the first level. encoder_width: those of the encoder; 0: as many. With a
        shortcut, half as many are enough.
    patch: the first convolution reads, and the last one writes, blocks of patch x patch pixels
        (space to depth). 1 in the paper; 2 spares a CPU the level of most pixels.
    shortcut: also a linear way from the pixels of a cell to z, and from a cell and its neighbours
        back to pixels. It starts as the means of as many parts of the cell as z has room for, while
        both networks start at zero, so training starts from codes that are patches (after DC-AE's
        residual autoencoding, Chen et al. 2025; not in the paper).
    blocks: residual blocks a level in the encoder; the decoder has one more.
    attention: self-attention at the deepest level and in the middle.
    depth: codes of a cell. 1 in the paper; with more, each code stands for what those before it
        left over, and z_q is their sum (residual quantisation, Lee et al. 2022). Each half's
        codebook then has `codes` rows for each of them, one after the other.
    remat: what each block computes again on the way back, see blocks.remat.
    """

    width: int = 128
    encoder_width: int = 0
    multipliers: tuple[int, ...] = (1, 1, 2, 2, 4)
    patch: int = 1
    shortcut: bool = False
    blocks: int = 2
    attention: bool = True
    embed_dim: int = 256
    codes: int = 2048
    depth: int = 1
    remat: bool | str = False
    dtype: jnp.dtype = jnp.float32

    def setup(self):
        shape = (self.depth * self.codes, self.embed_dim)
        self.codebook_upper = self.param("codebook_upper", self._uniform, shape)
        self.codebook_lower = self.param("codebook_lower", self._uniform, shape)
        common = dict(
            multipliers=self.multipliers,
            attention=self.attention,
            remat=self.remat,
            dtype=self.dtype,
        )
        last = {"kernel_init": nn.initializers.zeros} if self.shortcut else {}
        self.encoder = Encoder(
            width=self.encoder_width or self.width,
            blocks=self.blocks,
            embed_dim=self.embed_dim,
            last=last,
            **common,
        )
        self.decoder = Decoder(width=self.width, blocks=self.blocks + 1, **common)
        # float32: pixels should not come out in bfloat16's 256 steps per octave.
        self.to_rgb = Conv(3 * self.patch**2, (3, 3), dtype=jnp.float32, **last)
        if self.shortcut:
            means = _pixel_means(factor(self.multipliers, self.patch), self.embed_dim)
            self.pixels_to_z = nn.Dense(means.shape[1], kernel_init=_constant(means))
            spread = np.zeros((3, 3, *means.T.shape))
            spread[1, 1] = np.sign(means.T)
            self.z_to_pixels = Conv(
                means.shape[0], (3, 3), dtype=jnp.float32, kernel_init=_constant(spread)
            )

    @staticmethod
    def _uniform(rng, shape):
        return jax.random.uniform(rng, shape, minval=-1 / shape[0], maxval=1 / shape[0])

    def encode(self, image):
        """image [b H W 3] -> unquantised z float32 [b h w embed_dim] (paper eq. 1).

        Raises NetworkError where the image cannot be cut into halves of whole grid cells.
        """
        b, height, width, _ = image.shape
        f = factor(self.multipliers, self.patch)
        if height % (2 * f) or width % f:
            raise errors.NetworkError(
                f"VQGAN.encode: image {height}x{width} px; the height must be a multiple of "
                f"{2 * f} and the width of {f}: resize or crop it"
            )
        # [b H W] -> [2b H/2 W] is a pure reshape, and keeps a batch-sharded array in place.
        parts = image.reshape(2 * b, height // 2, width, image.shape[-1])
        z = self.encoder(to_patches(parts, self.patch))
        z = z.reshape(b, height // f, width // f, self.embed_dim)
        return z + self.pixels_to_z(to_patches(image, f)) if self.shortcut else z

    def nearest(self, z):
        """z float32 [b h w d] -> codes int32 [b h w*depth]: those of least squared L2 distance.

        |z|^2 - 2 z.c + |c|^2, less |z|^2, which is the same for all codes of a position.
        """
        pairs = zip(halves(z), (self.codebook_upper, self.codebook_lower), strict=True)
        found = [
            _nearest_sum(half, codebook.reshape(self.depth, self.codes, -1))
            for half, codebook in pairs
        ]
        return jnp.concatenate(found, axis=-2)

    def lookup(self, codes):
        """codes, any integer dtype [... h w*depth] -> z_q float32 [... h w d], the VQ-embedding."""
        middle = codes.shape[-2] // 2
        codes = codes.astype(jnp.int32).reshape(*codes.shape[:-1], -1, self.depth)
        upper, lower = codes[..., :middle, :, :], codes[..., middle:, :, :]
        return join(self.codebook_upper[upper].sum(-2), self.codebook_lower[lower].sum(-2))

    def trunk(self, z_q):
        """z_q [b h w d] -> [b H/p W/p width * multipliers[0]], the input of `paint`; p = patch."""
        return self.decoder(z_q)

    def paint(self, hidden, z_q):
        """The last convolution: what `trunk` gives (and z_q itself, by `shortcut`) -> [b H W 3]."""
        image = from_patches(self.to_rgb(hidden), self.patch)
        if self.shortcut:
            f = factor(self.multipliers, self.patch)
            image = image + from_patches(self.z_to_pixels(z_q), f)
        return image

    def decode(self, z_q):
        """z_q [b h w d] -> image float32 [b H W 3], nominally in [-1, 1] but not clipped."""
        return self.paint(self.trunk(z_q), z_q)

    def __call__(self, image):
        """image [b H W 3] -> (reconstruction [b H W 3], z, z_q [b h w d], codes [b h w*depth]).

        The decoder sees z + sg(z_q - z), so the encoder gets the decoder's gradient; z_q itself is
        the codebook rows, through which the codebook loss (eq. 4) reaches the codebooks.
        """
        z = self.encode(image)
        codes = self.nearest(z)
        z_q = self.lookup(codes)
        reconstruction = self.decode(z + jax.lax.stop_gradient(z_q - z))
        return reconstruction, z, z_q, codes


def _constant(kernel):
    """An initialiser that gives `kernel`."""
    return lambda rng, shape, dtype: jnp.asarray(kernel, dtype).reshape(shape)


def _pixel_means(f, dim):
    """[3ff dim]: a cell's pixels -> means of its q x q parts, the largest q that `dim` holds."""
    q = f
    while 3 * q * q > dim:
        q //= 2
    part = np.arange(f) * q // f
    place = (part[:, None] * q + part)[..., None] * 3 + np.arange(3)
    return np.eye(3 * q * q, dim)[place.reshape(-1)] * (q / f) ** 2


def _nearest_sum(z, codebooks):
    """z [... w d], codebooks [depth n d] -> int32 [... w*depth]: each code of what is left over."""
    found = []
    for level, codebook in enumerate(codebooks):
        codes = _nearest(z, codebook)
        found.append(codes + level * len(codebook))
        # A barrier: what is left over is rounded alike in every program that asks for codes.
        z = jax.lax.optimization_barrier(z - codebook[codes])
    return jnp.stack(found, axis=-1).reshape(*z.shape[:-2], -1)


def _nearest(z, codebook):
    """z [... d], codebook [n d] -> int32 [...]."""
    z, codebook = jax.lax.stop_gradient((z.astype(jnp.float32), codebook))
    # HIGHEST: a TPU would otherwise multiply in bfloat16, a GPU in TF32, and pick other codes.
    products = jnp.matmul(z, codebook.T, precision=jax.lax.Precision.HIGHEST)
    distances = jnp.sum(codebook**2, axis=-1) - 2 * products
    # Not argmin: CPUs take three times as long to carry numbers along with values.
    least = jnp.min(distances, axis=-1, keepdims=True)
    numbers = jnp.arange(len(codebook), dtype=jnp.int32)
    return jnp.min(jnp.where(distances == least, numbers, len(codebook) - 1), axis=-1)

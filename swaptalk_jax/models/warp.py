"""Face warping: moves the reference's lower half to the target's pose (paper III-C, Figure 2d)."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from swaptalk_jax.models.blocks import (
    Downsample,
    Norm,
    ResidualBlock,
    SelfAttention,
    check_halving,
)
from swaptalk_jax.models.kernels import upsample


def grid_sample(grid, offsets):
    """Bilinear reading of `grid` [b h w d] at (position + offset) -> [b h w d] of grid's dtype.

    offsets [b h w 2] are (x, y) in grid cells; positions outside are clamped to the border.
    Differentiable in both (the gradient of an offset is zero where its position was clamped).
    """
    b, h, w, d = grid.shape
    x = jnp.clip(jnp.arange(w) + offsets[..., 0].astype(jnp.float32), 0, w - 1)
    y = jnp.clip(jnp.arange(h)[:, None] + offsets[..., 1].astype(jnp.float32), 0, h - 1)
    # The cell's upper left corner stays one short of the last row and column, so that its other
    # corners exist; the weights then reach 1 there.
    x0 = jnp.clip(jnp.floor(x), 0, max(w - 2, 0))
    y0 = jnp.clip(jnp.floor(y), 0, max(h - 2, 0))
    flat = grid.reshape(b, h * w, d)

    def corner(dx, dy):
        """The values at (x0 + dx, y0 + dy), weighted by their nearness."""
        column = jnp.minimum(x0 + dx, w - 1).astype(jnp.int32)
        row = jnp.minimum(y0 + dy, h - 1).astype(jnp.int32)
        values = jnp.take_along_axis(flat, (row * w + column).reshape(b, h * w, 1), axis=1)
        weight = (1 - jnp.abs(x - x0 - dx)) * (1 - jnp.abs(y - y0 - dy))
        return values.reshape(b, h, w, d) * weight[..., None].astype(grid.dtype)

    return corner(0, 0) + corner(1, 0) + corner(0, 1) + corner(1, 1)


class Hourglass(nn.Module):
    """Down and up again with a skip at each of `depth` levels: [b h w d] -> [b h w width]."""

    width: int
    depth: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(self.width, dtype=self.dtype, name="linear")(x)
        skips = []
        for level in range(self.depth):
            x = ResidualBlock(self.width, dtype=self.dtype, name=f"down{level}_block")(x)
            skips.append(x)
            x = Downsample(self.width, self.dtype, name=f"down{level}_downsample")(x)
        x = ResidualBlock(self.width, dtype=self.dtype, name="middle_block")(x)
        for level in reversed(range(self.depth)):
            x = upsample(x) + skips[level]
            x = ResidualBlock(self.width, dtype=self.dtype, name=f"up{level}_block")(x)
        # Normalised: a constant added to both features would cancel in their difference.
        return nn.swish(Norm(self.dtype, name="norm_out")(x))


class OffsetEncoder(nn.Module):
    """The down path of a UNet; every level adds its offsets: [b h w c] -> [b h w 2] in grid cells.

    Coarse levels give the smooth motion of a turning head, fine ones its detail. The heads start at
    zero, so the warp starts as identity. attention: see FaceWarp.
    """

    width: int
    depth: int
    attention: bool
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x):
        b, h, w, _ = x.shape
        offsets = 0.0
        for level in range(self.depth + 1):
            channels = self.width * 2 ** min(level, 2)
            if level > 0:
                x = Downsample(channels, self.dtype, name=f"level{level}_down")(x)
            x = ResidualBlock(channels, dtype=self.dtype, name=f"level{level}_block")(x)
            if self.attention and level == self.depth:
                x = SelfAttention(dtype=self.dtype, name="attention")(x)
            hidden = nn.swish(Norm(self.dtype, name=f"level{level}_norm")(x))
            zero = nn.initializers.zeros
            head = nn.Dense(2, kernel_init=zero, dtype=jnp.float32, name=f"level{level}_offsets")
            offsets = offsets + jax.image.resize(head(hidden), (b, h, w, 2), "linear")
        return offsets


class FaceWarp(nn.Module):
    """(target_upper, reference_upper, reference_lower, all [b h w d]) -> (warped, offsets).

    warped [b h w d] is reference_lower read at position + offsets; offsets float32 [b h w 2] are
    (x, y) in grid cells. One hourglass sees both upper halves; the offsets are made of the
    difference, so equal upper halves give the same offsets whoever the person is.
    attention: self-attention in the deepest level of the offset encoder, through which the upper
        half's change reaches all of the lower half. The paper's figure draws none.
    Raises NetworkError where h or w is no multiple of 2 ** depth.
    """

    width: int = 128
    depth: int = 2
    attention: bool = False
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, target_upper, reference_upper, reference_lower):
        check_halving("FaceWarp", target_upper, self.depth)
        hourglass = Hourglass(self.width, self.depth, self.dtype, name="hourglass")
        difference = hourglass(target_upper) - hourglass(reference_upper)
        encoder = OffsetEncoder(self.width, self.depth, self.attention, self.dtype, name="unet")
        offsets = encoder(difference)
        return grid_sample(reference_lower, offsets), offsets

"""Face-swapping module: target tokens ask, source tokens answer (paper III-B, Figure 2c)."""

import flax.linen as nn
import jax.numpy as jnp

from swaptalk_jax import errors
from swaptalk_jax.models.attention import attention
from swaptalk_jax.models.blocks import Conv, remat


def sine_cosine(rng, shape):
    """Start of a learned position embedding [h w width]: sines and cosines of y and of x.

    Aligned faces answer mostly from the place that asks, and places that differ from the start are
    found at once; from the usual noise of 0.02 the tiny size had not found them in 500 steps.
    """
    del rng
    h, w, width = shape
    count = width // 4
    # From half a period over the grid to one in two cells.
    frequency = jnp.pi * jnp.geomspace(1.0 / max(h, w), 1.0, count)
    angles = [jnp.arange(n)[:, None] * frequency for n in (h, w)]
    y, x = (jnp.concatenate([jnp.sin(a), jnp.cos(a)], axis=-1) for a in angles)
    grid = jnp.broadcast_to(y[:, None], (h, w, 2 * count)), jnp.broadcast_to(x, (h, w, 2 * count))
    both = jnp.concatenate(grid, axis=-1)
    return jnp.pad(both, ((0, 0), (0, 0), (0, width - 4 * count)))


def _same(initializer, key):
    """The initializer with one key for all: query, key and value start equal."""
    return lambda rng, shape, dtype=jnp.float32: initializer(key, shape, dtype)


class CrossAttentionBlock(nn.Module):
    """Post-norm cross-attention block of the swap module (paper eq. 7, Figure 2c)."""

    width: int
    heads: int
    ffn_width: int
    equal_start: bool
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, target, source):
        """target [b n width] queries, source [b m width] keys and values -> [b n width]."""
        start = nn.initializers.lecun_normal()
        if self.equal_start and self.is_initializing():
            start = _same(start, self.make_rng("params"))
        attended = attention(
            self.heads,
            self.dtype,
            kernel_init=start,
            out_kernel_init=nn.initializers.lecun_normal(),
            name="attention",
        )(target, source)
        x = nn.LayerNorm(dtype=self.dtype, name="norm1")(target + attended)
        hidden = nn.gelu(nn.Dense(self.ffn_width, dtype=self.dtype, name="ffn_in")(x))
        hidden = nn.Dense(self.width, dtype=self.dtype, name="ffn_out")(hidden)
        return nn.LayerNorm(dtype=self.dtype, name="norm2")(x + hidden)


class SwapTransformer(nn.Module):
    """(source, target, both [b h w d]) -> the swapped face float32 [b h w embed_dim].

    tokens = Linear(grid) + position embedding + semantic embedding (source / target).
    All blocks see the same source tokens; only the target's are transformed.
    shared_linear: False as in Figure 2c, which draws a linear layer at each input. True: one for
        both, as the text's "a linear layer" can be read; both inputs are rows of the same
        codebooks, and the semantic embedding tells them apart.
    equal_start: False: query, key and value start as the usual noise, the paper names nothing else.
        True: they start equal, so a token asks at first for what is like it, in place and in kind.
    residual: the output is target x (1 + a) + source x b + c, cell by cell, with a, b and c
        [b h w embed_dim] from the last layer (starting at zero) in place of c alone: what stays is
        not drawn anew, what comes from the same place of the source keeps its detail (chosen).
    reach: how far the linear layers see. 0 in the paper: a cell alone; 1: also those around it, so
        that neighbours fit together (chosen).
    remat: what each block computes again on the way back, see blocks.remat.
    Raises NetworkError where the inputs are not of the size `grid` = (h, w), where width is no
    multiple of heads, or where residual meets another width than embed_dim.
    """

    blocks: int = 8
    width: int = 512
    heads: int = 8
    ffn_width: int = 2048
    embed_dim: int = 256
    grid: tuple[int, int] = (32, 32)
    shared_linear: bool = False
    equal_start: bool = False
    residual: bool = False
    reach: int = 0
    remat: bool | str = False
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, source, target):
        self._check(source, target)
        b, h, w, _ = target.shape
        normal = nn.initializers.normal(0.02)
        position = self.param("position", sine_cosine, (h, w, self.width)).reshape(h * w, -1)
        semantic = self.param("semantic", normal, (2, self.width))
        known, asked = (
            (tokens + position + kind).astype(self.dtype)
            for tokens, kind in zip(self._linear(source, target), semantic, strict=True)
        )
        block = remat(CrossAttentionBlock, self.remat)
        for i in range(self.blocks):
            asked = block(
                self.width,
                self.heads,
                self.ffn_width,
                self.equal_start,
                self.dtype,
                name=f"block{i}",
            )(asked, known)
        asked = asked.reshape(b, h, w, self.width)
        if not self.residual:
            return self._layer(self.embed_dim, "linear_out", dtype=jnp.float32)(asked)
        start = {"kernel_init": nn.initializers.zeros, "dtype": jnp.float32}
        x = self._layer(3 * self.embed_dim, "linear_out", **start)(asked)
        of_target, of_source, drawn = jnp.split(x, 3, axis=-1)
        return target * (1.0 + of_target) + source * of_source + drawn

    def _layer(self, features, name, **options):
        """A linear layer of each cell, and of those around it within `reach`."""
        if not self.reach:
            return nn.Dense(features, name=name, **options)
        side = 2 * self.reach + 1
        return Conv(features, (side, side), name=name, **options)

    def _linear(self, source, target):
        """Tokens of both grids before their embeddings: [b hw width] twice."""
        b, h, w, _ = target.shape
        if self.shared_linear:
            linear = self._layer(self.width, "linear_in", dtype=self.dtype)
            layers = linear, linear
        else:
            layers = (
                self._layer(self.width, f"linear_{side}", dtype=self.dtype)
                for side in ("source", "target")
            )
        grids = source, target
        return [layer(x).reshape(b, h * w, -1) for layer, x in zip(layers, grids, strict=True)]

    def _check(self, source, target):
        for name, array in (("source", source), ("target", target)):
            if array.shape[1:3] != tuple(self.grid):
                raise errors.NetworkError(
                    f"SwapTransformer: {name} grid is {array.shape[1:3]}, position embeddings are "
                    f"for {tuple(self.grid)}: set `grid` to the VQGAN's grid"
                )
        if self.width % self.heads:
            raise errors.NetworkError(
                f"SwapTransformer: width = {self.width} is no multiple of heads = {self.heads}"
            )
        if self.residual and target.shape[-1] != self.embed_dim:
            raise errors.NetworkError(
                f"SwapTransformer: residual needs embed_dim = {target.shape[-1]}, the width of the"
                f" VQ-embeddings; it is {self.embed_dim}"
            )

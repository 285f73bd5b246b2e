"""Convolutions that CPUs compute faster than XLA does by itself; on TPUs and GPUs they are XLA's.

The choice is made when a program is compiled, by its target (`jax.lax.platform_dependent`), so a
plan for a TPU that is made on a CPU holds the TPU's program. Results agree to float rounding.

What XLA does slowly on CPUs (jax 0.10, times of two cores; `python -m swaptalk_jax.benchmark
--kernels` gives them for the machine at hand):

- A kernel with more taps than the grid has cells: XLA swaps image and kernel, which no fast
  routine takes. Here the taps become columns of one matrix product.
- The image's gradient of a strided convolution: XLA convolves an image that is mostly zeros. Here
  one matrix product gives every tap's part, which is added where the tap lay. The kernel's
  gradient is one matrix product a tap, where channels are many.
- The kernel's gradient of few images: XLA makes examples the channels of a convolution, and one to
  three are too few for its vectors. Here each image is cut into strips, which count as examples.
- 3x3 convolutions of many cells and channels: Winograd's way (`winograd.py`) needs a quarter of the
  multiplications, forward and in both gradients.
- A 3x3 convolution of an image that was enlarged x2: four 2x2 convolutions of the small one give
  the same with 4/9 of the arithmetic.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name

from swaptalk_jax.models import winograd

NAME = "convolution"  # of results, for policies of jax.checkpoint
LAYOUT = ("NHWC", "HWIO", "NHWC")
EXAMPLES = 8  # of a kernel's gradient at full speed; below half of it, images are cut into strips
WIDE = 128  # channels from which a tap of a strided kernel is a matrix product worth its slice


def conv(x, kernel, strides, padding, **options):
    """What jax.lax.conv_general_dilated gives; the argument `conv_general_dilated` of nn.Conv.

    x [b h w c], kernel [kh kw c d] -> [b h' w' d]. Convolutions with groups, dilation or another
    number of axes go to XLA.
    """
    plain = functools.partial(
        jax.lax.conv_general_dilated, window_strides=strides, padding=padding, **options
    )
    dilated = [options.get(name) for name in ("lhs_dilation", "rhs_dilation")]
    if x.ndim != 4 or options.get("feature_group_count", 1) > 1:
        return plain(x, kernel)
    if any(factor != 1 for factors in dilated for factor in factors or ()):
        return plain(x, kernel)
    strides = tuple(strides)
    grid, taps = x.shape[1:3], kernel.shape[:2]
    if isinstance(padding, str):
        padding = jax.lax.padtype_to_pads(grid, taps, strides, padding)
    padding = tuple((int(low), int(high)) for low, high in padding)
    fast = _swapped(taps, grid) or _tiled(x.shape, kernel.shape, strides, padding, winograd.TILES)
    if strides == (1, 1) and not fast and _strips(x.shape, taps, padding) == 1:
        return plain(x, kernel)
    result = _conv(x, kernel, strides, padding, options.get("precision"))
    return checkpoint_name(result, NAME)  # a policy of remat sees no convolution in `_conv`


def upsampled_conv(x, kernel, strides, padding, **options):
    """`conv` of 3x3 taps over x enlarged to twice its size. [b h w c] -> [b 2h 2w d]."""
    del strides, padding  # 1 and SAME

    def plain(x, kernel):
        options_ = {"window_strides": (1, 1), "padding": "SAME", **options}
        return jax.lax.conv_general_dilated(upsample(x), kernel, **options_)

    def phases(x, kernel):
        b, h, w, _ = x.shape
        rows = []
        for i, of_row in enumerate(_pairs(kernel, 0)):
            row = [
                conv(x, of_cell, (1, 1), ((1 - i, i), (1 - j, j)), **options)
                for j, of_cell in enumerate(_pairs(of_row, 1))
            ]
            rows.append(jnp.stack(row, axis=3))
        return jnp.stack(rows, axis=2).reshape(b, 2 * h, 2 * w, kernel.shape[-1])

    return jax.lax.platform_dependent(x, kernel, cpu=phases, default=plain)


def upsample(x):
    """Nearest-neighbour x2. [b h w c] -> [b 2h 2w c].

    Broadcast + reshape: on CPU the gradient of jax.image.resize is 15x slower.
    """
    b, h, w, c = x.shape
    return jnp.broadcast_to(x[:, :, None, :, None, :], (b, h, 2, w, 2, c)).reshape(
        b, 2 * h, 2 * w, c
    )


def _pairs(kernel, axis):
    """Taps that even and odd places of an enlarged image see: three taps fall on two cells."""
    first, middle, last = (jax.lax.index_in_dim(kernel, i, axis) for i in range(3))
    join = functools.partial(jnp.concatenate, axis=axis)
    return join([first, middle + last]), join([first + middle, last])


def _tiled(shape, kernel, strides, padding, tiles):
    """Whether a convolution is done Winograd's way."""
    same = strides == (1, 1) and padding == ((1, 1), (1, 1))
    return same and winograd.suits(shape, kernel, tiles)


def _swapped(taps, grid):
    """Whether XLA takes the image for the kernel: more taps than cells."""
    return math.prod(taps) > math.prod(grid)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _conv(x, kernel, strides, padding, precision):
    plain = _plain(strides, padding, precision)
    if _tiled(x.shape, kernel.shape, strides, padding, winograd.TILES):
        tiled = functools.partial(winograd.conv, precision=precision)
        return jax.lax.platform_dependent(x, kernel, cpu=tiled, default=plain)
    if not _swapped(kernel.shape[:2], x.shape[1:3]):
        return plain(x, kernel)

    def columns(x, kernel):
        taps = _taps(x, kernel.shape[:2], strides, padding)
        return jnp.tensordot(
            jnp.concatenate(taps, axis=-1),
            kernel.reshape(-1, kernel.shape[-1]),
            1,
            precision=precision,
        )

    return jax.lax.platform_dependent(x, kernel, cpu=columns, default=plain)


def _forward(x, kernel, strides, padding, precision):
    return _conv(x, kernel, strides, padding, precision), (x, kernel)


def _backward(strides, padding, precision, kept, g):
    plain = _plain(strides, padding, precision)

    def derived(x, kernel, g):
        return jax.vjp(plain, x, kernel)[1](g)

    def for_cpu(x, kernel, g):
        return (
            _image_gradient(x.shape, kernel, g, strides, padding, precision),
            _kernel_gradient(x, kernel, g, strides, padding, precision),
        )

    return jax.lax.platform_dependent(*kept, g, cpu=for_cpu, default=derived)


_conv.defvjp(_forward, _backward)


def _strips(shape, taps, padding):
    """Strips of an image [b h w c] for a kernel's gradient: 1 where they would not help."""
    examples, height = shape[0], shape[1] + sum(padding[0]) - taps[0] + 1  # of the result
    if examples >= EXAMPLES // 2 or math.prod(taps) == 1 or _swapped(taps, shape[1:3]):
        return 1
    return math.gcd(EXAMPLES // examples, height)


def _gradient_of_strips(x, kernel, g, padding, precision, count):
    """The gradient by a kernel of stride 1; `count` strips of an image stand for examples."""
    rows = g.shape[1] // count
    padded = jax.lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), (*padding[0], 0), *[(0, 0, 0)] * 2])
    reach = rows + kernel.shape[0] - 1
    strips = [padded[:, i * rows : i * rows + reach] for i in range(count)]
    plain = _plain((1, 1), ((0, 0), padding[1]), precision)
    _, pull = jax.vjp(lambda kernel: plain(jnp.concatenate(strips), kernel), kernel)
    return pull(jnp.concatenate(jnp.split(g, count, axis=1)))[0]


def _plain(strides, padding, precision):
    return functools.partial(
        jax.lax.conv_general_dilated,
        window_strides=strides,
        padding=padding,
        dimension_numbers=LAYOUT,
        precision=precision,
    )


def _taps(x, taps, strides, padding):
    """What each tap sees: [b h w c] -> kh kw arrays [b h' w' c]."""
    padded = jax.lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *_edges(padding), (0, 0, 0)])
    reach = [n - k + 1 for n, k in zip(padded.shape[1:3], taps, strict=True)]
    sy, sx = strides
    return [padded[:, i : i + reach[0] : sy, j : j + reach[1] : sx] for i, j in np.ndindex(*taps)]


def _edges(padding):
    return [(low, high, 0) for low, high in padding]


def _kernel_gradient(x, kernel, g, strides, padding, precision):
    """The gradient by the kernel, by the way that suits its shape."""
    taps = kernel.shape[:2]
    if max(strides) > 1 and x.shape[-1] >= WIDE:
        return _product_a_tap(x, kernel.shape, g, strides, padding, precision)
    if _tiled(x.shape, kernel.shape, strides, padding, winograd.TILES_OF_GRADIENT):
        by = functools.partial(winograd.conv, x, precision=precision)
        return jax.vjp(by, kernel)[1](g)[0]
    strips = _strips(x.shape, taps, padding)
    if max(strides) == 1 and strips > 1:
        return _gradient_of_strips(x, kernel, g, padding, precision, strips)
    by = functools.partial(_plain(strides, padding, precision), x)
    return jax.vjp(by, kernel)[1](g)[0]


def _image_gradient(shape, kernel, g, strides, padding, precision):
    """The gradient by the image [b h w c] of this shape, by the way that suits it."""
    if max(strides) > 1 or _swapped(kernel.shape[:2], shape[1:3]):
        return _parts_of_taps(shape, kernel, g, strides, padding, precision)
    turned = jnp.flip(kernel, (0, 1)).swapaxes(2, 3)
    if _tiled(g.shape, turned.shape, strides, padding, winograd.TILES):
        return winograd.conv(g, turned, precision)
    plain = _plain(strides, padding, precision)
    (transposed,) = jax.linear_transpose(
        lambda x: plain(x, kernel), jax.ShapeDtypeStruct(shape, g.dtype)
    )(g)
    return transposed


def _product_a_tap(x, shape, g, strides, padding, precision):
    """One matrix product a tap."""
    return jnp.stack(
        [
            jnp.tensordot(tap, g, ((0, 1, 2), (0, 1, 2)), precision=precision)
            for tap in _taps(x, shape[:2], strides, padding)
        ]
    ).reshape(shape)


def _parts_of_taps(shape, kernel, g, strides, padding, precision):
    """One matrix product for all taps; each tap's part is added where the tap lay."""
    columns = jnp.tensordot(
        g, kernel.reshape(-1, kernel.shape[-1]), ((3,), (1,)), precision=precision
    )
    parts = jnp.split(columns, math.prod(kernel.shape[:2]), axis=-1)
    total, zero = 0.0, jnp.zeros((), columns.dtype)
    for place, part in zip(np.ndindex(*kernel.shape[:2]), parts, strict=True):
        edges = []
        for axis, tap in enumerate(place):
            stride, low = strides[axis], padding[axis][0]
            covered = (part.shape[1 + axis] - 1) * stride + 1
            start = tap - low
            edges.append((start, shape[1 + axis] - start - covered, stride - 1))
        total = total + jax.lax.pad(part, zero, [(0, 0, 0), *edges, (0, 0, 0)])
    return total.astype(g.dtype)

"""Convolutions for CPUs: the same values and gradients as XLA's own."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swaptalk_jax.models import blocks, kernels, winograd

LAYOUT = {"dimension_numbers": kernels.LAYOUT}


def arrays(*shapes):
    keys = jax.random.split(jax.random.key(0), len(shapes))
    return [jax.random.normal(key, shape) for key, shape in zip(keys, shapes, strict=True)]


def with_gradients(function, x, kernel):
    """(result, gradients) of function(x, kernel), of a sum that weighs every value differently."""

    def total(x, kernel):
        result = function(x, kernel)
        weights = jnp.sin(jnp.arange(result.size, dtype=jnp.float32)).reshape(result.shape)
        return jnp.sum(weights * result), result

    (_, result), gradients = jax.jit(jax.value_and_grad(total, (0, 1), has_aux=True))(x, kernel)
    return result, *gradients


def same(function, reference, x, kernel):
    pairs = zip(
        with_gradients(function, x, kernel), with_gradients(reference, x, kernel), strict=True
    )
    for own, wanted in pairs:
        np.testing.assert_allclose(own, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("grid", "taps", "stride", "padding"),
    [
        ((4, 4), (3, 3), 2, "SAME"),
        ((4, 4), (4, 4), 2, ((1, 1), (1, 1))),
        ((4, 4), (4, 4), 1, ((1, 1), (1, 1))),
        ((7, 10), (1, 1), 2, "SAME"),
        ((7, 10), (2, 2), 2, "VALID"),
        ((7, 10), (3, 1), 2, "SAME"),
        ((7, 10), (3, 3), 1, "SAME"),
        ((7, 10), (3, 3), 2, ((0, 2), (2, 0))),
        ((7, 10), (3, 3), 3, "VALID"),
    ],
)
def test_conv_is_that_of_xla(grid, taps, stride, padding):
    x, kernel = arrays((2, *grid, 3), (*taps, 3, 5))
    strides = (stride, stride)

    def plain(x, kernel):
        return jax.lax.conv_general_dilated(x, kernel, strides, padding, **LAYOUT)

    same(lambda x, k: kernels.conv(x, k, strides, padding, **LAYOUT), plain, x, kernel)


@pytest.mark.parametrize(("examples", "height"), [(1, 16), (1, 12), (2, 8), (3, 6), (4, 8)])
@pytest.mark.parametrize("padding", ["SAME", "VALID", ((0, 1), (2, 0))])
def test_gradients_of_few_examples(examples, height, padding):
    x, kernel = arrays((examples, height, 5, 3), (3, 3, 3, 4))

    def plain(x, kernel):
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), padding, **LAYOUT)

    same(lambda x, k: kernels.conv(x, k, (1, 1), padding, **LAYOUT), plain, x, kernel)


@pytest.mark.parametrize("grid", [(16, 16), (8, 20)])
def test_tiles_are_a_convolution(grid, monkeypatch):
    for name in ("CHANNELS", "TILES", "TILES_OF_GRADIENT"):
        monkeypatch.setattr(winograd, name, 4)
    x, kernel = arrays((2, *grid, 5), (3, 3, 5, 4))

    def plain(x, kernel):
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", **LAYOUT)

    def own(x, kernel):
        return kernels.conv(x, kernel, (1, 1), "SAME", **LAYOUT)

    pairs = zip(with_gradients(own, x, kernel), with_gradients(plain, x, kernel), strict=True)
    for made, wanted in pairs:
        assert np.abs(made - wanted).max() < 1e-3 * np.std(wanted)
    assert "dot_general" in jax.jit(own).lower(x, kernel).as_text()  # not XLA's convolution


@pytest.mark.parametrize(
    ("shape", "kernel", "suited"),
    [
        ((4, 32, 32, 128), (3, 3, 128, 128), True),
        ((4, 32, 30, 128), (3, 3, 128, 128), False),  # tiles do not fit
        ((4, 16, 16, 512), (3, 3, 512, 512), False),  # too few cells
        ((4, 64, 64, 64), (3, 3, 64, 128), False),  # too few channels
        ((4, 32, 32, 128), (1, 1, 128, 128), False),
    ],
)
def test_which_convolutions_are_tiled(shape, kernel, suited):
    assert winograd.suits(shape, kernel, winograd.TILES) == suited


@pytest.mark.parametrize("grid", [(1, 1), (2, 2), (2, 4), (1, 7)])
def test_conv_with_more_taps_than_cells(grid):
    x, kernel = arrays((3, *grid, 4), (3, 3, 4, 6))

    def plain(x, kernel):
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", **LAYOUT)

    same(lambda x, k: kernels.conv(x, k, (1, 1), "SAME", **LAYOUT), plain, x, kernel)


def test_what_it_does_not_know_goes_to_xla():
    x, kernel = arrays((2, 8, 8, 4), (3, 3, 2, 4))
    options = LAYOUT | {"feature_group_count": 2}
    plain = jax.lax.conv_general_dilated(x, kernel, (2, 2), "SAME", **options)
    np.testing.assert_array_equal(kernels.conv(x, kernel, (2, 2), "SAME", **options), plain)


@pytest.mark.parametrize("grid", [(1, 1), (2, 3), (8, 5)])
def test_upsampled_conv_is_a_conv_of_the_enlarged_image(grid):
    x, kernel = arrays((2, *grid, 3), (3, 3, 3, 4))

    def plain(x, kernel):
        x = kernels.upsample(x)
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", **LAYOUT)

    def own(x, kernel):
        return kernels.upsampled_conv(x, kernel, (1, 1), "SAME", **LAYOUT)

    same(own, plain, x, kernel)


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_accelerators_get_the_program_of_xla(platform):
    x, kernel = arrays((2, 8, 8, 4), (3, 3, 4, 4))

    def operations(conv):
        def loss(x, kernel):
            return jnp.sum(conv(x, kernel) ** 2)

        traced = jax.jit(jax.grad(loss, (0, 1))).trace(x, kernel)
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        return text.count("stablehlo.convolution"), text.count("stablehlo.dot_general")

    def plain(x, kernel):
        return jax.lax.conv_general_dilated(x, kernel, (2, 2), "SAME", **LAYOUT)

    own = operations(lambda x, k: kernels.conv(x, k, (2, 2), "SAME", **LAYOUT))
    assert own == operations(plain) == (3, 0)


def test_strided_gradients_hold_no_dilated_image_on_cpu():
    x, kernel = arrays((2, 8, 8, 4), (3, 3, 4, 4))

    def loss(x, kernel):
        return jnp.sum(kernels.conv(x, kernel, (2, 2), "SAME", **LAYOUT) ** 2)

    text = jax.jit(jax.grad(loss, (0, 1))).lower(x, kernel).compile().as_text()
    assert "lhs_dilate" not in text


def test_wide_kernels_have_the_same_gradients():
    x, kernel = arrays((2, 6, 6, kernels.WIDE), (3, 3, kernels.WIDE, 4))

    def plain(x, kernel):
        return jax.lax.conv_general_dilated(x, kernel, (2, 2), "SAME", **LAYOUT)

    same(lambda x, k: kernels.conv(x, k, (2, 2), "SAME", **LAYOUT), plain, x, kernel)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_norm_is_that_of_flax(dtype):

    x, weights = arrays((3, 5, 4, 12), (2, 12))
    params = {"params": {"scale": 1.0 + weights[0], "bias": weights[1]}}
    x = 3.0 * x + 1.0
    own = blocks.GroupNorm(3, jnp.dtype(dtype)).apply(params, x)
    wanted = nn.GroupNorm(3, epsilon=1e-6, dtype=jnp.dtype(dtype)).apply(params, x)
    assert own.dtype == wanted.dtype
    tolerance = 1e-5 if dtype == "float32" else 2e-2
    np.testing.assert_allclose(
        own.astype(jnp.float32), wanted.astype(jnp.float32), rtol=tolerance, atol=tolerance
    )

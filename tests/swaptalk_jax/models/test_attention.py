"""Attention: values of Flax's layer, masks, dtypes, and the kernel that a device gets."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swaptalk_jax.models import attention as module
from swaptalk_jax.models.attention import attend, attention


def arrays(*shapes, dtype=np.float32):
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.normal(size=shape), dtype) for shape in shapes]


def test_layer_is_flaxs():
    """Same parameters, same start, same values and gradients as Flax's layer in float32."""
    queries, keys = arrays((2, 7, 12), (2, 5, 12))
    mask = jnp.asarray([[True] * 5, [True, True, False, True, False]])[:, None, None, :]
    ours, theirs = attention(3), nn.MultiHeadDotProductAttention(3)
    params = theirs.init(jax.random.key(0), queries, keys)
    assert jax.tree.all(
        jax.tree.map(jnp.array_equal, params, ours.init(jax.random.key(0), queries, keys))
    )

    def value(layer):
        return lambda params: jnp.sum(layer.apply(params, queries, keys, mask=mask) ** 2)

    found, wanted = (jax.value_and_grad(value(layer))(params) for layer in (ours, theirs))
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def test_bias_and_mask():
    """A bias of minus infinity hides a key as a mask does; the rest shares its weight."""
    query, key, value = arrays((1, 3, 2, 4), (1, 6, 2, 4), (1, 6, 2, 4))
    seen = np.array([1, 1, 0, 1, 0, 1], bool)
    wanted = attend(query, key[:, seen], value[:, seen])
    np.testing.assert_allclose(attend(query, key, value, mask=seen), wanted, rtol=1e-5)
    bias = jnp.where(seen, 0.0, -jnp.inf)
    np.testing.assert_allclose(attend(query, key, value, bias=bias), wanted, rtol=1e-5)


def test_bfloat16_keeps_the_softmax_in_float32():
    """One key in 4,096 that all weights of bfloat16 together would drown keeps its share."""
    query, value = jnp.zeros((1, 1, 1, 8), jnp.bfloat16), jnp.ones((1, 4096, 1, 8), jnp.bfloat16)
    found = attend(query, value, value)
    assert found.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(found, np.float32), 1.0, rtol=0.01)


@pytest.mark.parametrize(
    ("dtype", "channels", "cuda", "kernel"),
    [
        (jnp.bfloat16, 64, True, "cudnn"),
        (jnp.bfloat16, 512, True, None),
        (jnp.bfloat16, 12, True, None),
        (jnp.float32, 64, True, None),
        (jnp.bfloat16, 64, False, None),
    ],
)
def test_kernel_of_a_device(monkeypatch, dtype, channels, cuda, kernel):
    """cuDNN where it takes the dtype and the width, XLA else; masks get four axes for it."""
    calls = []

    def fused(query, key, value, bias, mask, implementation):
        calls.append(implementation)
        assert bias is None and mask.shape == (1, 1, 1, 3)
        return jnp.zeros_like(query)

    monkeypatch.setattr(module, "_cuda", lambda: cuda)
    monkeypatch.setattr(jax.nn, "dot_product_attention", fused)
    query, key = arrays((1, 2, 2, channels), (1, 3, 2, channels), dtype=dtype)
    attend(query, key, key, mask=np.ones(3, bool))
    assert calls == ([kernel] if kernel else [])


def test_no_device_of_nvidia_here():
    """A CPU never asks for cuDNN."""
    if jax.default_backend() == "cpu":
        assert not module._cuda()

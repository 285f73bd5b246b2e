"""Attention between tokens: one function for all networks, and the layer around it."""

import math

import flax.linen as nn
import jax
import jax.extend.backend
import jax.numpy as jnp

# What cuDNN's fused kernel takes: dtypes, and the most channels a head on every GPU that has it.
FUSED_DTYPES = (jnp.bfloat16, jnp.float16)
FUSED_CHANNELS = 128


def attend(query, key, value, bias=None, mask=None):
    """softmax(query key / sqrt(d) + bias) value, each head for itself: -> [b t h d].

    query [b t h d], key and value [b s h d]: all of one dtype. bias: added to the scores, broadcast
    to [b h t s]. mask: bool, broadcast to [b h t s]; False: this key is not attended to. The
    softmax is float32; its weights, and what they are multiplied with, are of query's dtype.

    On a GPU that computes in bfloat16 cuDNN's fused kernel does it, which never writes the scores
    to memory, for heads of up to 128 channels in multiples of 8. Elsewhere XLA does.
    """
    if _fused(query):
        given = dict(bias=_four(bias), mask=_four(mask), implementation="cudnn")
        return jax.nn.dot_product_attention(query, key, value, **given)
    scores = jnp.einsum("bthd,bshd->bhts", query / math.sqrt(query.shape[-1]), key)
    if bias is not None:
        scores = scores + bias
    if mask is not None:
        scores = jnp.where(mask, scores, jnp.finfo(scores.dtype).min)
    weights = jax.nn.softmax(scores.astype(jnp.float32)).astype(value.dtype)
    return jnp.einsum("bhts,bshd->bthd", weights, value)


def _fused(query):
    """Whether cuDNN's kernel takes queries of this dtype and width, on the devices in use."""
    channels = query.shape[-1]
    taken = query.dtype in FUSED_DTYPES and channels % 8 == 0 and channels <= FUSED_CHANNELS
    return taken and _cuda()


def _cuda():
    """Whether the devices are NVIDIA's."""
    return "cuda" in jax.extend.backend.get_backend().platform_version


def _four(array):
    """With leading axes of 1, four axes in all; None stays."""
    return None if array is None else array.reshape((1,) * (4 - array.ndim) + array.shape)


def attention(heads, dtype=jnp.float32, **options):
    """A layer of `heads` heads around `attend`: layer(queries [b t c], keys=queries, mask=None).

    -> [b t c] of `dtype`. Its dense layers are named query, key, value and out. options: of
    nn.MultiHeadDotProductAttention, such as `name`, `use_bias` and `kernel_init`.
    """
    return nn.MultiHeadDotProductAttention(heads, dtype=dtype, attention_fn=attend, **options)

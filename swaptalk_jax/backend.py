"""What depends on the kind of device: compile options and the dtype of computation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

# XLA's new CPU kernels (YNN) are for sums alone: there they take half the time of its older ones,
# but twice the time in a convolution's gradients (jax 0.10.2, two cores with AVX2 and AVX-512).
CPU_OPTIONS = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_REDUCE"}


def jit(function, once=False, **options):
    """jax.jit with the compile options of the device in use.

    once: what runs once or twice is compiled in a hurry rather than well.
    """
    known = dict(compiler_options())
    if once and known:
        known |= {"xla_backend_optimization_level": 0}
    return jax.jit(function, compiler_options=known, **options)


@functools.cache
def compiler_options():
    """CPU_OPTIONS on a CPU whose XLA knows them (they are experimental), else none."""
    if jax.default_backend() != "cpu":
        return {}
    try:
        jax.jit(jnp.negative).lower(0.0).compile(compiler_options=CPU_OPTIONS)
    except jax.errors.JaxRuntimeError:
        return {}
    return CPU_OPTIONS


def in_batches(function, size, *arrays):
    """function(*arrays) as one NumPy array [n ...], asked for `size` examples at a time.

    arrays [n ...]. The last batch is filled with its own last example: one shape, one compilation.
    """
    results, count = [], len(arrays[0])
    for first in range(0, count, size):
        rows = np.minimum(np.arange(first, first + size), count - 1)
        results.append(np.asarray(function(*(x[rows] for x in arrays)))[: count - first])
    return np.concatenate(results)


def compute_dtype(precision):
    """Dtype name of the networks' computation; "auto": bfloat16 on accelerators, else float32."""
    if precision == "auto":
        return "float32" if jax.default_backend() == "cpu" else "bfloat16"
    return precision

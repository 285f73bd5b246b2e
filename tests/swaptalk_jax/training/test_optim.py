"""Optimizers from the config."""

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from swaptalk_jax.configs import common
from swaptalk_jax.training import optim


def test_muon_reads_kernels_as_matrices_and_leaves_the_rest_to_adam():
    params = {
        "net": {
            "conv": {"kernel": jnp.ones((3, 3, 8, 4)), "bias": jnp.ones(4)},
            "query": {"kernel": jnp.ones((8, 2, 4))},
            "out": {"kernel": jnp.ones((2, 4, 8))},
            "position": jnp.ones((5, 8)),
        },
        "age": jnp.ones(3),
    }
    groups = ConfigDict({"default": common.muon(0.1, 0.01), "constant": ("age",)})
    tx = optim.optimizer(groups, 10, 4, params)
    rng = np.random.default_rng(0)
    grads = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), jnp.float32), params)
    updates = tx.update(grads, tx.init(params), params)[0]
    # Muon's steps have singular values near its rate, times sqrt(outputs / inputs) above 1.
    for name, shape in (("conv", (72, 4)), ("query", (8, 8)), ("out", (8, 8))):
        values = np.linalg.svd(updates["net"][name]["kernel"].reshape(shape), compute_uv=False)
        assert values.min() > 0.05 and values.max() < 0.15
    for step in (updates["net"]["conv"]["bias"], updates["net"]["position"]):
        # Adam's first: the same everywhere (more than its rate, as optax's Muon has Nesterov's).
        np.testing.assert_allclose(np.abs(step), 0.01474, rtol=1e-2)
    assert (updates["age"] == 0).all()

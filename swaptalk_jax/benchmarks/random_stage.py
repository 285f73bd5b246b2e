"""A stage's real training step on random parameters and batches: for speed, never for losses."""

import math

import jax
import numpy as np

from swaptalk_jax import backend
from swaptalk_jax.configs import common
from swaptalk_jax.planning.abstract import Abstract, upstream
from swaptalk_jax.training import sharding

POOL = 1 << 20  # random numbers that fill all arrays, again and again


class RandomStage:
    """A config's step on the first device. abstract: its shapes; codes: how many there are."""

    def __init__(self, config):
        size = common.IMAGE_SIZE[config.size]
        self.config = config
        self.abstract = Abstract(config, upstream(config.size).__getitem__, size)
        self.mesh = sharding.make_mesh({sharding.AXIS: 1}, jax.devices()[:1])
        networks = {network.name: network.model for network in self.abstract.networks}
        self.codes = getattr(networks.get("vqgan"), "codes", 2)

    def lower(self, batch_size):
        """The training step, lowered for a batch."""
        return self.abstract.lower(self.mesh, batch_size, backend.compiler_options())

    def update(self, lowered, compiled):
        """batch -> metrics, from random parameters and optimizer states of zeros on."""
        state, frozen, _ = lowered.args_info[0]
        where = compiled.input_shardings[0]
        state = state.replace(
            params=drawn(state.params), step=np.int32(0), opt_state=zeros(state.opt_state)
        )
        state = state.replace(ema=drawn(state.ema))
        state, frozen = jax.device_put((state, drawn(frozen)), where[:2])

        def step(batch):
            nonlocal state
            state, metrics = compiled(state, frozen, batch)
            return metrics

        return step

    def batch(self, lowered):
        """A random batch of the size that was lowered."""
        rng = np.random.default_rng(0)
        shapes = lowered.args_info[0][2]
        made = {}
        for name, x in shapes.items():
            if np.issubdtype(x.dtype, np.integer):
                top = {"uint8": 256, "uint16": self.codes}.get(np.dtype(x.dtype).name, 2)
                made[name] = rng.integers(0, top, x.shape).astype(x.dtype)
            else:
                made[name] = rng.standard_normal(x.shape, np.float32).astype(x.dtype)
        return jax.device_put(made, sharding.batched(self.mesh))


def drawn(shapes):
    """A tree of arrays: kernels random and scaled by their inputs, scales 1, all else 0."""
    pool = np.random.default_rng(0).standard_normal(POOL, np.float32)

    def one(path, x):
        if len(x.shape) > 1:
            scale = 1.0 / math.sqrt(max(1, math.prod(x.shape[:-1])))
            return (np.resize(pool, x.shape) * scale).astype(x.dtype)
        name = jax.tree_util.keystr(path[-1:])
        return np.full(x.shape, "scale" in name or "var" in name, x.dtype)

    return jax.tree_util.tree_map_with_path(one, shapes)


def zeros(shapes):
    """A tree of arrays of zeros."""
    return jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)

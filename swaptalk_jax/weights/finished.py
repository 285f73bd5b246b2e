"""Networks that a stage reads and never trains, by the folder of the run that trained them."""

import functools

import jax.numpy as jnp

from swaptalk_jax import backend, errors
from swaptalk_jax.models.registry import build
from swaptalk_jax.weights import store


class FinishedNetwork:
    """A finished network: `apply(params, ...)` runs it, `params()` reads its parameters.

    folder: workdir of a finished run, a bundle's part or a pretrained network's folder; name: the
    slot, which is the key in its config.model and its parameters. The network's class and fields
    come from that folder's config, never from this run's.
    """

    def __init__(self, folder, name, dtype, remat=False):
        self.folder, self.name = folder, name
        self.config = store.load_config(folder)
        if name not in self.config.get("model", {}):
            raise errors.CheckpointError(f"{folder}: holds no {name}")
        network = self.config.get("network")
        self.model = build(name, self.config["model"][name], network, remat, dtype)

    def params(self):
        """Nested dict of NumPy arrays."""
        return store.load_network(self.folder)[0][self.name]

    def empty(self, codes):
        """Zeros of the shape of the VQ-embeddings of codes [... h w], to initialise networks."""
        return jnp.zeros((*codes.shape, self.model.embed_dim))

    def apply(self, params, *args, **kwargs):
        """The model's apply on its own parameters."""
        return self.model.apply({"params": params}, *args, **kwargs)


def opened(config):
    """{slot: FinishedNetwork} of the folders that config.frozen names; "" names none.

    Only their configs are read. Raises CheckpointError where a folder holds no such network.
    """
    network = functools.partial(
        FinishedNetwork, dtype=backend.compute_dtype(config.precision), remat=config.remat
    )
    return {slot: network(folder, slot) for slot, folder in config.frozen.items() if folder}


def starting_point(config):
    """Parameters that a new run starts from: those of the folder config.init_from; None: none."""
    folder = config.get("init_from")
    return store.load_network(folder)[0] if folder else None

"""Networks that a stage reads and never trains, by the folder of the run that trained them."""

import jax.numpy as jnp

from swaptalk_jax import errors
from swaptalk_jax.models.registry import build
from swaptalk_jax.weights import store


class FinishedNetwork:
    """A finished network: `apply(params, ...)` runs it, `params()` reads its parameters.

    folder: workdir of a finished run, a bundle's part or a pretrained network's folder; name: the
    slot, which is the key in its config.model and its parameters. The network's class and numbers
    come from that folder's config, never from this run's.
    """

    def __init__(self, folder, name, dtype, remat=False):
        self.folder, self.name = folder, name
        self.config = store.load_config(folder)
        if name not in self.config["model"]:
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

"""Networks that a stage reads and never trains, by the folder of the run that trained them."""

import jax.numpy as jnp

from swaptalk_jax import checkpoints
from swaptalk_jax.models.expert import LipExpert
from swaptalk_jax.models.recogniser import Recogniser
from swaptalk_jax.models.vqgan import VQGAN

MODELS = {"vqgan": VQGAN, "recogniser": Recogniser, "expert": LipExpert}


class Network:
    """A finished network: `apply(params, ...)` runs it, `params()` reads its parameters.

    folder: workdir of a finished run or a bundle's part; name: the key in its config.model and
    its parameters. The network's numbers come from that run's config, never from this one's.
    """

    def __init__(self, folder, name, dtype):
        self.folder, self.name = folder, name
        self.config = checkpoints.load_config(folder)
        self.model = MODELS[name](**self.config["model"][name], dtype=dtype)

    def params(self):
        """Nested dict of NumPy arrays."""
        return checkpoints.load_network(self.folder)[0][self.name]

    def empty(self, codes):
        """Zeros of the shape of the VQ-embeddings of codes [... h w], to initialise networks."""
        return jnp.zeros((*codes.shape, self.model.embed_dim))

    def apply(self, params, *args, **kwargs):
        """The model's apply on its own parameters."""
        return self.model.apply({"params": params}, *args, **kwargs)

"""Networks that a stage reads and never trains, by the folder of the run that trained them."""

import functools

import jax.numpy as jnp

from swaptalk_jax import backend, errors
from swaptalk_jax.models.registry import build, remat_of
from swaptalk_jax.weights import store

TEACHER = "teacher_"  # begins the slots of a teacher's networks


class FinishedNetwork:
    """A finished network: `apply(params, ...)` runs it, `params()` reads its parameters.

    folder: workdir of a finished run, a bundle's part or a pretrained network's folder; name: the
    slot, which is the key in its config.model and its parameters, less TEACHER. The network's class
    and fields come from that folder's config, never from this run's.
    """

    def __init__(self, folder, name, dtype, remat=False):
        self.folder, self.name, self.key = folder, name, name.removeprefix(TEACHER)
        self.config = store.load_config(folder)
        if self.key not in self.config.get("model", {}):
            raise errors.CheckpointError(f"{folder}: holds no {self.key}")
        network = self.config.get("network")
        self.model = build(self.key, self.config["model"][self.key], network, remat, dtype)

    def params(self):
        """Nested dict of NumPy arrays."""
        return store.load_network(self.folder)[0][self.key]

    def empty(self, codes):
        """Zeros like the VQ-embeddings of codes [... h w*depth], to initialise networks."""
        cells = codes.shape[-1] // self.model.depth
        return jnp.zeros((*codes.shape[:-1], cells, self.model.embed_dim))

    def apply(self, params, *args, **kwargs):
        """The model's apply on its own parameters."""
        return self.model.apply({"params": params}, *args, **kwargs)


def opened(config, taught=()):
    """{slot: FinishedNetwork} of the folders that config.frozen names; "" names none.

    taught: names of the networks that config.distil.teacher is asked for, where the config has one;
    their slots begin with TEACHER. Only configs are read. Raises CheckpointError where a folder
    holds no such network.
    """
    network = functools.partial(
        FinishedNetwork, dtype=backend.compute_dtype(config.precision), remat=remat_of(config)
    )
    places = dict(config.frozen)
    if "distil" in config:
        places |= {TEACHER + name: config.distil.teacher for name in taught}
    return {slot: network(folder, slot) for slot, folder in places.items() if folder}


def starting_point(config):
    """Parameters that a new run starts from: those of the folder config.init_from; None: none."""
    folder = config.get("init_from")
    return store.load_network(folder)[0] if folder else None

"""A stage's training step without data, parameters, frozen networks or devices: shapes alone.

For compiling ahead of time (launch/plan.py). All of it is what training uses: the stage itself, its
optimizer, layout and step; only arrays are jax.ShapeDtypeStructs.
"""

import functools
import importlib
import json
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp

from data_pipelines.loading import shapes
from data_pipelines.records import kinds
from swaptalk_jax import pretrained, sound, stages
from swaptalk_jax.training import checkpoints, optim, sharding
from swaptalk_jax.training.step import initial, make_step
from swaptalk_jax.training.upstream import TRAINED_BY
from swaptalk_jax.weights import finished, store

PEOPLE = Path("frames") / kinds.VERSION / "metadata.json"


def get_config(name, size):
    """A stage's config at a size."""
    return importlib.import_module(f"swaptalk_jax.configs.{name}").get_config(size)


def upstream(size):
    """{stage: config} of all stages at a size."""
    return {name: get_config(name, size) for name in stages.registered()}


def reads(config):
    """Paths of the files that an Abstract takes shapes from where they are, sorted."""
    folders = {Path(folder) for folder in config.frozen.values() if folder}
    folders.add(Path(config.data.features))
    networks = [f / name for f in folders for name in (store.CONFIG, store.PARAMS)]
    return sorted([*networks, config.data.root / PEOPLE])


class Abstract:
    """What setup.Trainer makes of a config, as shapes.

    config: as training takes it, precision and remat included; what its folders hold is used, and
    what they lack is what `upstream` says. upstream: name of a stage -> the config that would train
    it. size: pixels of a side of the images. identities: people of the set, where it isn't there.
    known: stages that were described already, by name.
    """

    def __init__(self, config, upstream, size, identities=300, known=None):
        self.config = config.copy_and_resolve_references()
        self.upstream, self.size, self.identities = upstream, size, identities
        self.known = {} if known is None else known
        with tempfile.TemporaryDirectory() as folder:
            self._fill(Path(folder))
            networks = finished.opened(self.config, stages.named(self.config.stage).bundled)
            self.stage = stages.make(self.config, networks, self._people())
        self.networks = list(self.stage.networks.values())
        self.frozen = {network.name: self._params(network) for network in self.networks}
        self.example = shapes.example(self.stage.view, self.config.data, self.metadata())
        self.key = jax.eval_shape(lambda: jax.random.key(0))
        self.params = jax.eval_shape(self.stage.init, self.key, self.batch(1))
        steps, batch_size = config.train.steps, config.train.batch_size
        self.tx = optim.optimizer(config.optimizer, steps, batch_size, self.params)

    def _fill(self, folder):
        """Lays into `folder` the config.json of networks that nobody has trained yet."""
        self.absent = {}  # slot -> config of the stage that would train it; None: a public network
        for slot, place in self.config.frozen.items():
            if not place or _stands(Path(place)):
                continue
            public = pretrained.networks().get(Path(place).name)
            trained = None if public else self.upstream(TRAINED_BY[slot])
            path = folder / slot / store.CONFIG
            path.parent.mkdir()
            path.write_text(trained.to_json() if trained else _described(public))
            self.absent[slot], self.config.frozen[slot] = trained, str(path.parent)

    def _people(self):
        """Metadata of the set of frames, or as many people as were said, where it isn't there."""
        path = self.config.data.root / PEOPLE
        if path.exists():
            return json.loads(path.read_text())
        return {"identities": [""] * self.identities}

    def _params(self, network):
        """Shapes of a frozen network's parameters."""
        if network.name not in self.absent:
            return _structs(network.params())
        config = self.absent[network.name]
        if config is None:
            image = jax.ShapeDtypeStruct((1, self.size, self.size, 3), jnp.float32)
            key = jax.eval_shape(lambda: jax.random.key(0))
            return jax.eval_shape(network.model.init, key, image)["params"]
        if config.stage not in self.known:
            rest = (self.upstream, self.size, self.identities, self.known)
            self.known[config.stage] = Abstract(config, *rest)
        return self.known[config.stage].params[network.name]

    def metadata(self):
        """Sizes of the records, from the networks that encode them, as a set's metadata."""
        known = {"size": self.size, "embedding": 1, "grid": (1, 1)}  # views that hold none
        image = jax.ShapeDtypeStruct((1, self.size, self.size, 3), jnp.float32)
        known["audio_width"] = _audio_width(self.config.data.features)
        for network in self.networks:
            params = self.frozen[network.name]
            if network.name == "recogniser":
                known["embedding"] = jax.eval_shape(network.apply, params, image).shape[-1]
            if network.name == "vqgan":
                encode = functools.partial(network.apply, method="encode")
                _, h, w, _ = jax.eval_shape(encode, params, image).shape
                known["grid"] = h, w * network.model.depth
        return known

    def batch(self, size, layout=None):
        """ShapeDtypeStructs of a batch of `size` examples."""
        return {
            name: jax.ShapeDtypeStruct((size, *x.shape), x.dtype, sharding=layout)
            for name, x in self.example.items()
        }

    def lower(self, mesh, batch_size, options=None):
        """The training step, lowered for a mesh; `.compile()` makes it a program.

        batch_size: global. options: of the compiler, see backend.compiler_options.
        """
        state = jax.eval_shape(
            functools.partial(initial, self.stage, self.tx, self.config),
            self.key,
            self.batch(batch_size),
        )
        layout = sharding.layout(mesh, state, self.config.sharding)
        everywhere = sharding.replicated(mesh)
        split = sharding.Split(batch_size, mesh, self.config.train.accumulate)
        step = jax.jit(
            make_step(self.stage, self.tx, self.config, split),
            donate_argnums=0,
            out_shardings=(layout, everywhere),
            compiler_options=options,
        )
        return step.lower(
            checkpoints.described(state, layout),
            _structs(self.frozen, everywhere),
            self.batch(split.padded, sharding.batched(mesh)),
        )


def _audio_width(features):
    """Values of a token of sound; of a public network that isn't there, its class tells."""
    public = pretrained.networks().get(Path(features).name)
    if public and not _stands(Path(features)):
        return sound.NETWORKS[public.module].network.width
    return sound.Features(features).width


def _described(public):
    """config.json of a public network that isn't there: with the numbers of its class."""
    return json.dumps({"network": public.module, "model": {public.slot: {}}})


def _stands(folder):
    return (folder / store.CONFIG).exists() and (folder / store.PARAMS).exists()


def _structs(tree, layout=None):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=layout), tree)

"""A stage made ready: its data, its frozen networks and its compiled functions on the mesh."""

import time

import jax
import jax.numpy as jnp
import numpy as np

from data_pipelines.loading import loader, roots
from swaptalk_jax import backend, errors, stages
from swaptalk_jax.costs import count
from swaptalk_jax.training import checkpoints, optim, processes, resident, sharding
from swaptalk_jax.training.step import initial, make_step
from swaptalk_jax.weights import encoded, finished, provenance


class Batches:
    """A stage's training and validation batches, as global arrays on the mesh.

    They are padded as `split` and `eval_split` (sharding.Split) say: any size fits any mesh.
    With config.data.resident, `held` has the whole set, and training batches are numbers of its
    rows until `whole` has gathered them.
    """

    def __init__(self, config, view, mesh):
        self.config, self.view, self.mesh = config, view, mesh
        train = config.train
        self.split = sharding.Split(train.batch_size, mesh, train.accumulate)
        self.eval_split = sharding.Split(train.eval_batch_size, mesh)
        self.drawn, self.held = view, {}
        if config.data.resident:
            arrays, self.drawn = loader.resident(config.data, "train", view)
            self.held = resident.hold(arrays, mesh)

    def training(self, step):
        """Endless iterator that begins with the batch of `step`."""
        c, size = self.config, self.split.size
        options = {"step": step, "workers": c.data.workers, "rows": self.split.rows()}
        stream = loader.dataset(c.data, "train", self.drawn, size, c.seed, **options)
        return (sharding.place(batch, self.mesh) for batch in stream)

    def whole(self, held, batch):
        """A batch of `training` with all values in it; to be compiled into what uses it."""
        if not held:
            return batch
        return resident.gather(held, batch, self.drawn.source, self.mesh)

    def validation(self):
        """The fixed set of unseen identities, once; padding has the mask 0."""
        c, size, rows = self.config, self.eval_split.size, self.eval_split.rows()
        stream = loader.evaluation(c.data, "val", self.view, size, c.seed, rows)
        return (sharding.place(batch, self.mesh) for batch in stream)


class Trainer:
    """What the loop calls, all of it compiled once: update, evaluate, pictures, histograms."""

    def __init__(self, config, devices=None):
        """devices: to run on, all that JAX sees unless given."""
        self.config, declared = config, stages.named(config.stage)
        networks = finished.opened(config, declared.bundled)
        kind = declared.metadata_of
        metadata = roots.metadata(config.data, kind) if kind else None
        self.stage = stages.make(config, networks, metadata)
        self.mesh = _mesh(config, devices)
        processes.meet()
        self.everywhere = sharding.replicated(self.mesh)
        self.batches = Batches(config, self.stage.view, self.mesh)
        self.key = jax.random.key(config.seed)
        self.rows = next(self.batches.training(0))
        self.example = jax.jit(self.batches.whole)(self.batches.held, self.rows)
        shapes = jax.eval_shape(self.stage.init, self.key, self.example)
        steps, batch_size = config.train.steps, config.train.batch_size
        self.tx = optim.optimizer(config.optimizer, steps, batch_size, shapes)
        self.shapes = jax.eval_shape(self._init, self.example)
        self.layout = sharding.layout(self.mesh, self.shapes, config.sharding)
        frozen = {slot: network.params() for slot, network in self.stage.networks.items()}
        self.vqgan_fingerprint = encoded.check_codes(config, self.stage.view, frozen)
        self.sound_fingerprint = encoded.check_sound(config, self.stage.view)
        fingerprints = self.vqgan_fingerprint, self.sound_fingerprint
        provenance.check_teachers(self.stage.networks, config, *fingerprints)
        self.frozen = jax.device_put(frozen, self.everywhere)
        self.step = None
        whole = {"out_shardings": self.everywhere}  # so that every host can read the results
        self.evaluate = backend.jit(self.stage.evaluate, **whole)
        self.pictures = backend.jit(self._unpadded(self.stage.pictures), once=True, **whole)
        self.histograms = backend.jit(self._unpadded(self.stage.histograms), once=True, **whole)

    def _init(self, batch):
        return initial(self.stage, self.tx, self.config, self.key, batch)

    def _unpadded(self, function):
        """A function of (params, frozen, validation batch) that sees real examples alone."""
        split = self.batches.eval_split
        return lambda params, frozen, batch: function(params, frozen, split.real(batch))

    def new_state(self):
        """The state of step 0."""
        state = backend.jit(self._init, once=True, out_shardings=self.layout)(self.example)
        params = self.stage.start(state.params, finished.starting_point(self.config))
        state = state.replace(params=jax.device_put(params, self.layout.params))
        averaged = self.stage.averaged(state.params) if state.ema else {}
        # Copies: an array that stood twice in the state could not be donated.
        ema = jax.jit(lambda x: jax.tree.map(jnp.copy, x), out_shardings=self.layout.ema)(averaged)
        return state.replace(ema=ema)

    def restored(self, saved):
        """(step, state) of what `saved` (checkpoints.Checkpoints) holds; (0, None): nothing."""
        return saved.restore(checkpoints.described(self.shapes, self.layout))

    def compile(self, state):
        """Compiles the update for states like this one; returns the seconds that it took."""
        began = time.perf_counter()
        step = make_step(self.stage, self.tx, self.config, self.batches.split)

        def gathered(state, frozen, held, batch):
            return step(state, frozen, self.batches.whole(held, batch))

        where = (self.layout, self.everywhere)
        update = backend.jit(gathered, donate_argnums=0, out_shardings=where)
        self.step = update.lower(state, self.frozen, self.batches.held, self.rows).compile()
        return time.perf_counter() - began

    def update(self, state, batch):
        """(state, batch) -> (state, metrics); the state that went in is used up.

        Compiled once and for all: a batch of another shape is an error, never another compilation.
        """
        if self.step is None:
            self.compile(state)
        return self.step(state, self.frozen, self.batches.held, batch)

    def costs(self):
        """What a step costs each device (costs.Costs), as its compiler tells."""
        return count.costs_of(self.step)

    def size(self):
        """The number of trained and counted values."""
        return sum(x.size for x in jax.tree.leaves(self.shapes.params))

    def finished(self, state):
        """The parameters to keep, as NumPy arrays: averages where there are any."""
        whole = jax.jit(lambda x: x, out_shardings=self.everywhere)(state.best)
        return jax.tree.map(np.asarray, whole)


def _mesh(config, devices):
    """The config's mesh; raises RunError where it does not fit the devices.

    Any batch fits any number of devices (sharding.Split).
    """
    try:
        return sharding.make_mesh(config.mesh, devices)
    except ValueError as error:
        raise errors.RunError(str(error)) from error

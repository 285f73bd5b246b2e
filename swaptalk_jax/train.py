"""Trains one stage: `python -m swaptalk_jax.train --config=configs/sync.py:tiny`.

The order of a step is fixed: evaluate, save, next batch, update. All that a step depends on is
the state, the step's number and the data, so a resumed run equals an uninterrupted one.
"""

from pathlib import Path

import flax
import jax
import jax.numpy as jnp
import optax
from absl import app, flags
from ml_collections import config_flags

from data_pipelines import loader, records
from swaptalk_jax import (
    backend,
    checkpoints,
    optim,
    progress,
    sharding,
    stages,
    upstream,
    writer,
)


@flax.struct.dataclass
class TrainState:
    """All that is checkpointed: a tree of arrays."""

    step: jax.Array
    params: dict
    opt_state: tuple


def make_step(stage, tx, seed):
    """(state, frozen, batch) -> (state, metrics), a pure function."""

    def step(state, frozen, batch):
        rng = jax.random.fold_in(jax.random.key(seed), state.step)
        (loss, (metrics, aux)), grads = jax.value_and_grad(stage.loss, has_aux=True)(
            state.params, frozen, batch, rng, state.step
        )
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        params = stage.after_update(params, aux, jax.random.fold_in(rng, 1))
        metrics = {"loss": loss, **metrics, "gradient_norm": optax.global_norm(grads)}
        return TrainState(state.step + 1, params, opt_state), metrics

    return step


class Batches:
    """A stage's training and validation batches, as global arrays on the mesh."""

    def __init__(self, config, view, mesh):
        self.config, self.view, self.mesh = config, view, mesh
        self.hosts = {"hosts": jax.process_count(), "host": jax.process_index()}

    def training(self, step):
        """Endless iterator that begins with the batch of `step`."""
        c, size = self.config, self.config.train.batch_size
        options = {"step": step, "workers": c.data.workers, **self.hosts}
        stream = loader.dataset(c.data, "train", self.view, size, c.seed, **options)
        return (sharding.place(batch, self.mesh) for batch in stream)

    def validation(self):
        """The fixed set of unseen identities, once."""
        c, size = self.config, self.config.train.eval_batch_size
        stream = loader.evaluation(c.data, "val", self.view, size, c.seed, **self.hosts)
        return (sharding.place(batch, self.mesh) for batch in stream)


class Run:
    """A stage with its data, its frozen networks and its compiled functions on the mesh."""

    def __init__(self, config):
        self.stage = stages.make(config)
        self.mesh = sharding.make_mesh(config.mesh)
        self.everywhere = sharding.replicated(self.mesh)
        self.batches = Batches(config, self.stage.view, self.mesh)
        self.key = jax.random.key(config.seed)
        self.example = next(self.batches.training(0))
        shapes = jax.eval_shape(self.stage.init, self.key, self.example)
        self.tx = optim.optimizer(config.optimizer, config.train.steps, shapes)
        frozen = self.stage.load_frozen()
        self.vqgan_fingerprint = upstream.check_codes(config, self.stage.view, frozen)
        self.sound_fingerprint = upstream.check_sound(config, self.stage.view)
        self.frozen = jax.device_put(frozen, self.everywhere)
        self.update = backend.jit(make_step(self.stage, self.tx, config.seed), donate_argnums=0)
        self.evaluate = backend.jit(self.stage.evaluate)
        self.pictures = backend.jit(self.stage.pictures, once=True)

    def _init(self, batch):
        params = self.stage.init(self.key, batch)
        return TrainState(jnp.zeros((), jnp.int32), params, self.tx.init(params))

    def new_state(self):
        """The state of step 0."""
        init = backend.jit(self._init, once=True, out_shardings=self.everywhere)
        state = init(self.example)
        params = self.stage.start(state.params)
        return state.replace(params=jax.device_put(params, self.everywhere))

    def restored(self, saved, step):
        """The state that `saved` (checkpoints.Checkpoints) holds of a step."""
        shapes = jax.eval_shape(self._init, self.example)
        return saved.restore(step, checkpoints.described(shapes, self.everywhere))


def evaluate(run, params):
    """Averages per-example values over the validation set: {name: float}."""
    sums, count = {}, 0.0
    for batch in run.batches.validation():
        values = run.evaluate(params, run.frozen, batch)
        sums = {k: sums.get(k, 0.0) + jnp.sum(v * batch["mask"]) for k, v in values.items()}
        count += jnp.sum(batch["mask"])
    return {f"val/{k}": float(v / count) for k, v in sums.items()}


def train(config):
    """Runs a stage to its end, from its newest checkpoint if there is one.

    Returns the last TrainState. Raises progress.RunError (a SystemExit) when the run cannot go on;
    Ctrl-C saves and exits with 130.
    """
    upstream.prepare(config)
    workdir, steps, every = Path(config.workdir), config.train.steps, config.train
    plain_config = checkpoints.claim(workdir, config)
    run = Run(config)
    saved = checkpoints.Checkpoints(workdir, every.keep)
    start = saved.latest() or 0
    if start:
        state = run.restored(saved, start)
        print(f"[{config.stage}] goes on at step {start}", flush=True)
    else:
        state = run.new_state()
        count = sum(x.size for x in jax.tree.leaves(state.params))
        print(f"[{config.stage}] {count:,} parameters, {run.mesh.size} device(s)", flush=True)
    log, history = writer.Writer(workdir, start), progress.History(config.stage, steps)
    stream = run.batches.training(start)

    with progress.Interrupt() as interrupt:
        for step in range(start, steps + 1):
            last, new = step == steps, step > start
            if new and (step % every.log_every == 0 or last or step == start + 1):
                history.flush(log)
            if new and (step % every.eval_every == 0 or last):
                values = evaluate(run, state.params)
                log.scalars(step, values)
                print(f"[{config.stage}] {step}/{steps}  {progress.shown(values)}", flush=True)
                rows = run.pictures(state.params, run.frozen, next(run.batches.validation()))
                if rows is not None:
                    log.picture(step, "samples", writer.grid(rows))
            if new and (step % every.save_every == 0 or last or interrupt.asked):
                history.flush(log)  # a state that holds a NaN is never saved
                saved.save(step, state)
            if last or interrupt.asked:
                break
            state, metrics = run.update(state, run.frozen, next(stream))
            history.add(step + 1, metrics)
    saved.close()
    log.close()
    if interrupt.asked and not last:
        print(f"[{config.stage}] stopped and saved at step {step}; the same command goes on")
        raise SystemExit(130)
    if jax.process_index() == 0:
        noted = plain_config | {
            "vqgan_fingerprint": run.vqgan_fingerprint,
            "sound_fingerprint": run.sound_fingerprint,
        }
        checkpoints.save_network(workdir, state.params, noted)
    return state


def main(_):
    """Command line: trains the config's stage unless it has its steps already."""
    progress.quiet()
    config = flags.FLAGS.config
    if config.distributed:
        jax.distributed.initialize()
    try:
        done = checkpoints.finished_steps(config.workdir)
        if done >= config.train.steps:
            print(f"[{config.stage}] {config.workdir} has its {done} steps; nothing to do")
            return
        train(config)
    except (checkpoints.CheckpointError, records.RecordError) as error:
        raise progress.RunError(f"[{config.stage}] {error}") from error


if __name__ == "__main__":
    # Not at the top: programs that import this file have a --config of their own.
    config_flags.DEFINE_config_file("config")
    flags.mark_flags_as_required(["config"])
    app.run(main)

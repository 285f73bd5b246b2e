"""Trains one stage, step by step.

The order of a step is fixed: evaluate, save, next batch, update. All that a step depends on is
the state, the step's number and the data, so a resumed run equals an uninterrupted one.
"""

from pathlib import Path

import jax
import jax.numpy as jnp

from swaptalk_jax import errors, pictures
from swaptalk_jax.training import agreement, checkpoints, claim, upstream
from swaptalk_jax.training.history import History
from swaptalk_jax.training.interrupt import Interrupt
from swaptalk_jax.training.log import Writer
from swaptalk_jax.training.setup import Trainer
from swaptalk_jax.training.trace import Trace
from swaptalk_jax.training.watchdog import Watchdog
from swaptalk_jax.weights import store


def evaluate(run, params):
    """Averages per-example values over the validation set: {name: float}."""
    sums, count = {}, 0.0
    for batch in run.batches.validation():
        values = run.evaluate(params, run.frozen, batch)
        sums = {k: sums.get(k, 0.0) + jnp.sum(v * batch["mask"]) for k, v in values.items()}
        count += jnp.sum(batch["mask"])
    return {f"val/{k}": float(v / count) for k, v in sums.items()}


def look(run, state, step, log, history):
    """Evaluates; leaves numbers, sample pictures and histograms in the log."""
    values = evaluate(run, state.best)
    log.scalars(step, values)
    history.evaluated(step, values)
    batch = next(run.batches.validation())
    rows = run.pictures(state.best, run.frozen, batch)
    if rows is not None:
        log.picture(step, "samples", pictures.grid(rows))
    for name, found in run.histograms(state.best, run.frozen, batch).items():
        log.histogram(step, name, found)


def run(config):
    """Trains the config's stage, unless it has its steps already."""
    agreement.check(config)
    if claim.ended(config):
        steps = config.train.steps
        print(f"[{config.stage}] {config.workdir} has its {steps} steps; nothing to do")
        return
    train(config)


def train(config):
    """Runs a stage to its end, from its newest whole checkpoint if there is one.

    Returns the last TrainState. Raises errors.RunError when the run cannot go on, errors.Stopped
    when it has saved after Ctrl-C or SIGTERM.
    """
    agreement.check(config)
    upstream.prepare(config)
    agreement.check_upstream(config)
    workdir, steps, every = Path(config.workdir), config.train.steps, config.train
    watchdog = Watchdog(every.hang_seconds, f"[{config.stage}]")
    with watchdog, Interrupt() as interrupt:
        plain_config = claim.claim(config)
        run = Trainer(config)
        saved = checkpoints.Checkpoints(workdir, every.keep)
        start, state = run.restored(saved)
        if state is None:
            state = run.new_state()
        history = History(config, start)
        history.compiled(run.compile(state), run.costs, run.size())
        log, trace = Writer(workdir, start), Trace(workdir, every)
        stream = run.batches.training(start)

        for step in range(start, steps + 1):
            watchdog.pet(f"step {step}")
            last, new, leaving = step == steps, step > start, interrupt.asked(step)
            if new and (step % every.log_every == 0 or last or step == 1):
                history.flush(log)
            if new and (step % every.eval_every == 0 or last):
                watchdog.pet(f"the evaluation at step {step}")
                with history.apart():
                    look(run, state, step, log, history)
            if new and (step % every.save_every == 0 or last or leaving):
                history.check()  # a state that holds a NaN is never saved
                saved.save(step, state)
            if last or leaving:
                break
            trace.at(step)
            with history.waiting():
                batch = next(stream)
            state, metrics = run.update(state, batch)
            history.add(step + 1, metrics)
        trace.close()
        saved.close()
        log.close()
        if leaving and not last:
            kept = "and saved at" if new else "before"
            line = f"stopped {kept} step {step + (not new)}; the same command goes on"
            raise errors.Stopped(line, leaving)
        params = run.finished(state)
        if jax.process_index() == 0:
            noted = plain_config | {
                "vqgan_fingerprint": run.vqgan_fingerprint,
                "sound_fingerprint": run.sound_fingerprint,
            }
            store.save_network(workdir, params, noted)
    return state

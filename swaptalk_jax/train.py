"""Trains one stage: `python -m swaptalk_jax.train --config=configs/sync.py:tiny`.

The order of a step is fixed: evaluate, save, next batch, update. All that a step depends on is
the state, the step's number and the data, so a resumed run equals an uninterrupted one.
"""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
from absl import app, flags
from ml_collections import config_flags

from data_pipelines.records import kinds
from swaptalk_jax import command, errors, pictures
from swaptalk_jax.training import agreement, checkpoints, claim, processes, upstream
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


def train(config):
    """Runs a stage to its end, from its newest whole checkpoint if there is one.

    Returns the last TrainState. Raises progress.RunError (a SystemExit) when the run cannot go on;
    Ctrl-C and SIGTERM save and exit with processes' codes.
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
        history.compiled(run.compile(state), run.costs(), run.size())
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
            print(
                f"[{config.stage}] stopped {kept} step {step + (not new)}; the same command goes on"
            )
            raise SystemExit(leaving)
        params = run.finished(state)
        if jax.process_index() == 0:
            noted = plain_config | {
                "vqgan_fingerprint": run.vqgan_fingerprint,
                "sound_fingerprint": run.sound_fingerprint,
            }
            store.save_network(workdir, params, noted)
    return state


def main(_):
    """Command line: trains the config's stage unless it has its steps already."""
    command.quiet()
    with command.failing_alone():
        start(flags.FLAGS.config)


def start(config):
    """Joins the other processes, if there are any, and trains; exits with processes' codes."""
    try:
        if config.distributed:
            processes.join(config)
        command.keep_compiled(config.compile_cache)
        agreement.check(config)
        if claim.ended(config):
            steps = config.train.steps
            print(f"[{config.stage}] {config.workdir} has its {steps} steps; nothing to do")
            return
        train(config)
    except (errors.CheckpointError, kinds.RecordError, errors.RunError) as error:
        print(f"[{config.stage}] {error}", file=sys.stderr)
        raise SystemExit(errors.REFUSED) from error


if __name__ == "__main__":
    # Not at the top: programs that import this file have a --config of their own.
    config_flags.DEFINE_config_file("config")
    flags.mark_flags_as_required(["config"])
    app.run(main)

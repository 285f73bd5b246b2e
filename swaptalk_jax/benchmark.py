"""Step time, examples/s and the loader's own rate of one stage.

    python -m swaptalk_jax.benchmark --config=configs/vqgan.py:tiny

Three measurements of one run, so that their ratios can be trusted: the loader alone, the step
alone (one batch again and again), and both together as training has them.
"""

import time

import jax
from absl import app, flags
from ml_collections import config_flags

from data_pipelines import records
from swaptalk_jax import checkpoints, progress, train, upstream


def seconds_each(function, steps):
    """Seconds a call of function(), over `steps` calls; the last result is waited for."""
    began = time.perf_counter()
    for _ in range(steps):
        result = function()
    jax.block_until_ready(result)
    return (time.perf_counter() - began) / steps


def measure(config, steps):
    """{name: seconds a step} and the seconds of the first call, which compiles."""
    run = train.Run(config)
    state, stream = run.new_state(), run.batches.training(0)
    batch = next(stream)

    def step(batch):
        nonlocal state
        state, metrics = run.update(state, run.frozen, batch)
        return metrics

    compiling = seconds_each(lambda: step(batch), 1)
    jax.block_until_ready(step(batch))
    return {
        "loader alone": seconds_each(lambda: next(stream), steps),
        "step alone": seconds_each(lambda: step(batch), steps),
        "loader + step": seconds_each(lambda: step(next(stream)), steps),
    }, compiling


def main(_):
    """Prints the table."""
    progress.quiet()
    config = flags.FLAGS.config
    try:
        upstream.prepare(config)
        rows, compiling = measure(config, flags.FLAGS.steps)
    except (checkpoints.CheckpointError, records.RecordError) as error:
        raise SystemExit(f"[benchmark] {error}") from error
    size = config.train.batch_size
    print(f"{config.stage}:{config.size}, batch {size}, {jax.device_count()} device(s)", end="")
    print(f" of {jax.devices()[0].device_kind}; first step (compiles) {compiling:.1f} s")
    for name, each in rows.items():
        print(f"  {name:14} {each * 1e3:10.1f} ms/step {size / each:10.1f} examples/s")
    waiting = 1.0 - rows["step alone"] / rows["loader + step"]
    print(f"  share of the step that waits for input: {max(waiting, 0.0):.1%}")


if __name__ == "__main__":
    # Not at the top: programs that import this file have a --config of their own.
    config_flags.DEFINE_config_file("config")
    flags.DEFINE_integer("steps", 20, "Steps of each measurement.")
    flags.mark_flags_as_required(["config"])
    app.run(main)

"""How fast a stage's training runs, and what it waits for.

    python -m swaptalk_jax.benchmark --config=configs/vqgan.py:tiny             # step and input
    python -m swaptalk_jax.benchmark --config=configs/sync.py:micro --scaling   # devices, processes
    python -m swaptalk_jax.benchmark --config=configs/sync.py:tiny --startup    # time to first step

Each compares within one run, so that its ratios can be trusted.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
from absl import app, flags
from ml_collections import config_flags

from data_pipelines import records
from swaptalk_jax import backend, checkpoints, processes, progress, scaling, upstream, writer
from swaptalk_jax.costs import chips
from swaptalk_jax.run import Run


def seconds_each(function, steps):
    """Median of the seconds that a call of function() takes, its result waited for."""
    times = []
    for _ in range(steps):
        began = time.perf_counter()
        jax.block_until_ready(function())
        times.append(time.perf_counter() - began)
    return float(np.median(times))


def measure(config, steps):
    """({name: seconds a step}, seconds to compile, FLOPs of a device).

    Loader alone, step alone (one batch again and again), and both as training has them: there the
    next batch is made while a step runs.
    """
    run = Run(config)
    state, stream = run.new_state(), run.batches.training(0)
    compiling = run.compile(state)
    batch = next(stream)

    def step(batch):
        nonlocal state
        state, metrics = run.update(state, batch)
        return metrics

    jax.block_until_ready(step(batch))
    alone = seconds_each(lambda: step(batch), steps)
    before = jax.block_until_ready(step(batch))
    began = time.perf_counter()
    for _ in range(steps):
        metrics = step(next(stream))
        jax.block_until_ready(before)  # as training: one step is always queued
        before = metrics
    jax.block_until_ready(before)
    together = time.perf_counter() - began
    rows = {
        "loader alone": seconds_each(lambda: next(stream), steps),
        "step alone": alone,
        "loader + step": together / steps,
    }
    return rows, compiling, run.costs().flops


def startup(arguments):
    """{cache: seconds from the command to the first step}, without and with what XLA has kept."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in ("cold", "warm"):
            command = [sys.executable, "-m", "swaptalk_jax.train", *arguments]
            command += [f"--config.workdir={folder}/{name}", f"--config.compile_cache={folder}/xla"]
            began = time.perf_counter()
            run = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            for line in run.stdout:
                if " 1/" in line:
                    found[name] = time.perf_counter() - began
                    break
                print(f"  {line.rstrip()}")
            run.kill()
            run.wait()
            if name not in found:
                raise SystemExit(f"[benchmark] {' '.join(command)} ended before its first step")
    return found


def main(_):
    """Prints the table."""
    progress.quiet()
    values = flags.FLAGS
    config = values.config
    arguments = [a for a in sys.argv[1:] if not a.startswith(("--scaling", "--startup", "--out"))]
    try:
        if config.distributed:
            processes.join(config)
        elif values.scaling and "JAX_NUM_CPU_DEVICES" not in os.environ:
            jax.config.update("jax_num_cpu_devices", scaling.SIMULATED)
        backend.keep_compiled(config.compile_cache)
        upstream.prepare(config)
        if values.scaling_rows:
            found = scaling.rows(config, jax.devices(), values.scaling_most, values.steps)
            if jax.process_index() == 0:
                writer.replace(values.scaling_rows, json.dumps(found).encode())
        elif values.scaling:
            out = Path(values.out or f"{config.root}/scaling/{config.stage}")
            raise SystemExit(bool(scaling.run(config, values.steps, arguments, out)))
        elif values.startup:
            for name, seconds in startup(arguments).items():
                print(f"  {name} cache: {seconds:6.1f} s from the command to the first step")
        else:
            _tell(config, values.steps)
    except (checkpoints.CheckpointError, records.RecordError, progress.RunError) as error:
        raise SystemExit(f"[benchmark] {error}") from error


def _tell(config, steps):
    rows, compiling, flops = measure(config, steps)
    size, kind = config.train.batch_size, jax.devices()[0].device_kind
    print(f"{config.stage}:{config.size}, batch {size}, {jax.device_count()} x {kind}; ", end="")
    print(f"step compiled in {compiling:.1f} s, {flops / 1e9:.4g} GFLOP a device")
    for name, each in rows.items():
        print(f"  {name:14} {each * 1e3:10.1f} ms/step {size / each:10.1f} examples/s")
    lost = max(0.0, 1.0 - rows["step alone"] / rows["loader + step"])
    print(f"  input takes {lost:.1%} of the time")
    chip, rate = chips.find(kind), flops / rows["loader + step"]
    share = f", {rate / chip.peak_flops:.1%} of the chip's peak" if chip else ""
    print(f"  {rate / 1e12:.4g} TFLOP/s a device{share}")


if __name__ == "__main__":
    # Not at the top: programs that import this file have a --config of their own.
    config_flags.DEFINE_config_file("config")
    flags.DEFINE_integer("steps", 20, "Steps of each measurement.")
    flags.DEFINE_bool("scaling", False, "Weak and strong scaling over devices and processes.")
    flags.DEFINE_bool("startup", False, "Time to the first step, with a cold and a warm cache.")
    flags.DEFINE_string("out", "", "Folder of --scaling's page; <root>/scaling/<stage> if not set.")
    flags.DEFINE_string("scaling_rows", "", "One of several processes: writes its rows here.")
    flags.DEFINE_integer("scaling_most", 1, "The largest number of devices that is compared.")
    flags.mark_flags_as_required(["config"])
    app.run(main)

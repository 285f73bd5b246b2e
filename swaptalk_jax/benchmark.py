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

from data_pipelines import loader, records
from swaptalk_jax import backend, checkpoints, processes, progress, scaling, upstream, writer
from swaptalk_jax.costs import chips
from swaptalk_jax.run import Run


def seconds(function, steps):
    """Seconds that a call of function() takes on average, the last one's result waited for."""
    began, before = time.perf_counter(), None
    for _ in range(steps):
        after = function()
        jax.block_until_ready(before)  # as training: one step is always queued
        before = after
    jax.block_until_ready(before)
    return (time.perf_counter() - began) / steps


def measure(config, steps, rounds=5):
    """({name: seconds a step}, share of the time that input takes, seconds to compile, FLOPs).

    Loader alone, step alone (one batch again and again), and both as training has them: there the
    next batch is made while a step runs. They take turns, `rounds` times, so that a machine that
    becomes slower does so for all of them; told are medians. FLOPs are those of a device.
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
    each = max(1, steps // rounds)
    ways = {
        "loader alone": lambda: next(stream),
        "step alone": lambda: step(batch),
        "loader + step": lambda: step(next(stream)),
    }
    taken = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            if "loader" in name:  # what was made meanwhile would flatter it
                seconds(ways["loader alone"], 2 * loader.PREFETCH)
            taken[name].append(seconds(way, each))
    rows = {name: float(np.median(times)) for name, times in taken.items()}
    pairs = zip(taken["step alone"], taken["loader + step"], strict=True)
    share = max(0.0, float(np.median([1.0 - alone / both for alone, both in pairs])))
    return rows, share, compiling, run.costs().flops


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
    rows, share, compiling, flops = measure(config, steps)
    size, kind = config.train.batch_size, jax.devices()[0].device_kind
    print(f"{config.stage}:{config.size}, batch {size}, {jax.device_count()} x {kind}; ", end="")
    print(f"step compiled in {compiling:.1f} s, {flops / 1e9:.4g} GFLOP a device")
    for name, each in rows.items():
        print(f"  {name:14} {each * 1e3:10.1f} ms/step {size / each:10.1f} examples/s")
    print(f"  input takes {share:.1%} of the time")
    chip, rate = chips.find(kind), flops / rows["loader + step"]
    peak = f", {rate / chip.peak_flops:.1%} of the chip's peak" if chip else ""
    print(f"  {rate / 1e12:.4g} TFLOP/s a device{peak}")


if __name__ == "__main__":
    # Not at the top: programs that import this file have a --config of their own.
    config_flags.DEFINE_config_file("config")
    flags.DEFINE_integer("steps", 40, "Steps of each measurement.")
    flags.DEFINE_bool("scaling", False, "Weak and strong scaling over devices and processes.")
    flags.DEFINE_bool("startup", False, "Time to the first step, with a cold and a warm cache.")
    flags.DEFINE_string("out", "", "Folder of --scaling's page; <root>/scaling/<stage> if not set.")
    flags.DEFINE_string("scaling_rows", "", "One of several processes: writes its rows here.")
    flags.DEFINE_integer("scaling_most", 1, "The largest number of devices that is compared.")
    flags.mark_flags_as_required(["config"])
    app.run(main)

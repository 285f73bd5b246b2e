"""How fast a stage's training runs, and what it waits for.

    python -m swaptalk_jax.benchmark --config=configs/vqgan.py:tiny             # step and input
    python -m swaptalk_jax.benchmark --config=configs/sync.py:micro --scaling   # devices, processes
    python -m swaptalk_jax.benchmark --config=configs/sync.py:tiny --startup    # time to first step

Each compares within one run, so that its ratios can be trusted.
"""

import json
import os
import sys
from pathlib import Path

import jax
from absl import app, flags
from ml_collections import config_flags

from data_pipelines import files
from data_pipelines.records import kinds
from swaptalk_jax import command, errors
from swaptalk_jax.benchmarks import scaling
from swaptalk_jax.benchmarks.startup import startup
from swaptalk_jax.benchmarks.steps import measure
from swaptalk_jax.costs import chips
from swaptalk_jax.training import agreement, processes, upstream


def main(_):
    """Prints the table."""
    command.quiet()
    values = flags.FLAGS
    config = values.config
    arguments = [a for a in sys.argv[1:] if not a.startswith(("--scaling", "--startup", "--out"))]
    try:
        if config.distributed:
            processes.join(config)
        elif values.scaling and "JAX_NUM_CPU_DEVICES" not in os.environ:
            jax.config.update("jax_num_cpu_devices", scaling.SIMULATED)
        command.keep_compiled(config.compile_cache)
        agreement.check(config)
        upstream.prepare(config)
        agreement.check_upstream(config)
        if values.scaling_rows:
            found = scaling.rows(config, jax.devices(), values.scaling_most, values.steps)
            if jax.process_index() == 0:
                files.replace(values.scaling_rows, json.dumps(found).encode())
        elif values.scaling:
            out = Path(values.out or f"{config.root}/scaling/{config.stage}")
            raise SystemExit(bool(scaling.run(config, values.steps, arguments, out)))
        elif values.startup:
            for name, seconds in startup(arguments).items():
                print(f"  {name} cache: {seconds:6.1f} s from the command to the first step")
        else:
            _tell(config, values.steps)
    except (errors.CheckpointError, kinds.RecordError, errors.RunError) as error:
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

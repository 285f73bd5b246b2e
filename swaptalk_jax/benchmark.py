"""How fast a stage's training runs, and what it waits for.

    python -m swaptalk_jax.benchmark --config=configs/vqgan.py:tiny             # step and input
    python -m swaptalk_jax.benchmark --config=configs/sync.py:micro --scaling   # devices, processes
    python -m swaptalk_jax.benchmark --config=configs/sync.py:tiny --startup    # time to first step
    python -m swaptalk_jax.benchmark --kernels                     # ours by XLA's, on a CPU
    python -m swaptalk_jax.benchmark --peers --peer=taming:<checkout>   # beside others' programs
    python -m swaptalk_jax.benchmark --config=configs/sync.py:micro --card=step --out=row.jsonl

The last one needs no data and no trained networks; launch/gpu_check.sh makes a table of such rows.

Each compares within one run, so that its ratios can be trusted.
"""

import sys
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from swaptalk_jax import command
from swaptalk_jax.benchmarks import card, kernels, scaling, startup, steps
from swaptalk_jax.benchmarks.peers import comparison
from swaptalk_jax.training import agreement, upstream


def main(values):
    """Prints the table that the flags ask for; returns the exit code."""
    if values.kernels:
        kernels.tell(values.turns)
        return 0
    if values.peers:
        out = Path(values.out or "runs/peers")
        comparison.run(values.peer, values.peer_python, values.turns, values.peer_batch, out)
        return 0
    config = values.config
    if values.card:
        rest = (values.card_seconds, values.card_memory)
        return card.measure(config, values.card, values.out, *rest)
    arguments = [a for a in sys.argv[1:] if not a.startswith(("--scaling", "--startup", "--out"))]
    if values.scaling:
        scaling.simulate(config)
    agreement.check(config)
    upstream.prepare(config)
    agreement.check_upstream(config)
    if values.scaling_rows:
        scaling.write_rows(config, values.scaling_most, values.steps, values.scaling_rows)
    elif values.scaling:
        out = Path(values.out or f"{config.root}/scaling/{config.stage}")
        return int(bool(scaling.run(config, values.steps, arguments, out)))
    elif values.startup:
        startup.tell(arguments)
    else:
        steps.tell(config, values.steps)
    return 0


if __name__ == "__main__":
    # Not at the top: programs that import this file have a --config of their own.
    config_flags.DEFINE_config_file("config")
    flags.DEFINE_integer("steps", 40, "Steps of each measurement.")
    flags.DEFINE_bool("scaling", False, "Weak and strong scaling over devices and processes.")
    flags.DEFINE_bool("startup", False, "Time to the first step, with a cold and a warm cache.")
    flags.DEFINE_bool("kernels", False, "Our convolutions and norms by XLA's; takes no --config.")
    flags.DEFINE_bool("peers", False, "Ours and others' programs in turns; takes no --config.")
    flags.DEFINE_multi_string("peer", [], "NAME:CHECKOUT of one of them; may be repeated.")
    flags.DEFINE_string("peer_python", sys.executable, "The python that has PyTorch.")
    flags.DEFINE_integer(
        "turns", 5, "Pairs of turns of --kernels and of each comparison with a peer."
    )
    flags.DEFINE_integer("peer_batch", 4, "At most so many pictures or frames a turn of them.")
    flags.DEFINE_string(
        "out", "", "Folder of --scaling (<root>/scaling/<stage>) and --peers; file of --card."
    )
    flags.DEFINE_string("scaling_rows", "", "One of several processes: writes its rows here.")
    flags.DEFINE_integer("scaling_most", 1, "The largest number of devices that is compared.")
    flags.DEFINE_enum("card", "", ["", *card.MEASUREMENTS], "What to measure of the first device.")
    flags.DEFINE_float("card_seconds", 100.0, "What --card may take about; a search ends in time.")
    flags.DEFINE_float("card_memory", 0.0, "GiB that --card=largest may fill; 0: the device's own.")
    flags.register_multi_flags_validator(
        ["config", "kernels", "peers"],
        lambda given: given["kernels"] or given["peers"] or given["config"] is not None,
        "Flag --config must have a value other than None, but with --kernels or --peers.",
    )
    command.start("benchmark", main)

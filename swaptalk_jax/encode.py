"""Face shards -> code shards: `python -m swaptalk_jax.encode --config=configs/vqgan.py --out=D`.

Reads `frames`, `clips` and `triples` below config.data.root; writes `codes` and `swaps` below D:
the VQGAN's codes, audio features at 50 Hz, and the recogniser's embeddings, all constants of the
later stages. The VQGAN is the one that this config trained, the recogniser its frozen one.

Finished shards are kept: stopped, the same command goes on where it stopped. With several
processes (--config.distributed=True) each host makes its own share of the shards on its devices.
"""

from absl import flags
from ml_collections import config_flags

from swaptalk_jax import command


def main(values):
    """Makes what is missing of both sets."""
    from swaptalk_jax.encoding import sets  # here: a wrong command line shall not wait for it

    sets.encode(values.config, values.out, values.batch_size)


if __name__ == "__main__":
    # Not at the top: programs that import this file have a --config of their own.
    config_flags.DEFINE_config_file("config")
    flags.DEFINE_string("out", None, "Folder for the code shards.")
    text = "Frames a step, over all devices of a host; 0: 64 a device, 4 on a CPU."
    flags.DEFINE_integer("batch_size", 0, text, lower_bound=0)
    flags.mark_flags_as_required(["config", "out"])
    command.start("encode", main, stopped="stopped; the same command goes on where it stopped")

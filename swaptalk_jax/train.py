"""Trains one stage: `python -m swaptalk_jax.train --config=configs/sync.py:tiny`.

A run that was stopped goes on with the same command.
"""

from absl import flags
from ml_collections import config_flags

from swaptalk_jax import command


def main(values):
    """Trains the config's stage unless it has its steps already."""
    from swaptalk_jax.training import loop  # here: a wrong command line shall not wait for it

    loop.run(values.config)


if __name__ == "__main__":
    # Not at the top: programs that import this file have a --config of their own.
    config_flags.DEFINE_config_file("config")
    flags.mark_flags_as_required(["config"])
    command.start("train", main)

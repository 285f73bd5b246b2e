"""Face shards -> code shards: `python -m swaptalk_jax.encode --config=configs/vqgan.py --out=D`.

Reads `frames`, `clips` and `triples` below config.data.root; writes `codes` and `swaps` below D:
the VQGAN's codes, audio features at 50 Hz, and the recogniser's embeddings, all constants of the
later stages. The VQGAN is the one that this config trained, the recogniser its frozen one.

Finished shards are kept: stopped, the same command goes on where it stopped. With several
processes (--config.distributed=True) each host makes its own share of the shards on its devices.
"""

import json
from pathlib import Path

import jax
from absl import app, flags
from ml_collections import config_flags

from data_pipelines import files
from data_pipelines.records import kinds
from swaptalk_jax import command, errors
from swaptalk_jax.encoding.sets import Encoding
from swaptalk_jax.training import agreement, upstream

DONE = "encode.json"


def main(_):
    """Command line."""
    command.quiet()
    config, out = flags.FLAGS.config, Path(flags.FLAGS.out)
    if config.distributed:
        jax.distributed.initialize()
    try:
        agreement.check(config)
        upstream.prepare(config, "sound", config.stage)
        agreement.check_upstream(config)
        encoding = Encoding(config, out, flags.FLAGS.batch_size)
        done = out / DONE
        if done.exists() and json.loads(done.read_text()) == encoding.metadata:
            print(f"[encode] {out} already holds these codes; nothing to do")
            return
        encoding.run()
        if jax.process_index() == 0:
            files.replace(done, json.dumps(encoding.metadata, indent=1).encode())
    except (errors.CheckpointError, kinds.RecordError) as error:
        raise SystemExit(f"[encode] {error}") from error
    except KeyboardInterrupt:
        raise SystemExit("[encode] stopped; the same command goes on where it stopped") from None


if __name__ == "__main__":
    # Not at the top: programs that import this file have a --config of their own.
    config_flags.DEFINE_config_file("config")
    flags.DEFINE_string("out", None, "Folder for the code shards.")
    flags.DEFINE_integer("batch_size", 64, "Frames a step, over all devices of a host.")
    flags.mark_flags_as_required(["config", "out"])
    app.run(main)

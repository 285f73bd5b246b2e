"""Checkpoints -> one inference bundle: `python -m swaptalk_jax.export --workdir=W --out=BUNDLE`.

A bundle is a folder of safetensors files, one per stage, and `config.json`, which holds the
networks' numbers, the sha256 of every file and the fingerprint of the VQGAN whose codes the other
networks speak. Nothing else of a run is needed to infer or evaluate: where a speech network makes
the features of sound, it is part of the bundle.
"""

import jax
from absl import flags

from swaptalk_jax import command, stages
from swaptalk_jax.weights.bundle import NOTICE, export


def main(values):
    """Writes the bundle and tells what is in it."""
    jax.config.update("jax_platforms", "cpu")  # nothing is computed; leave accelerators to others
    config = export(values.workdir, values.out, stages.bundled())
    steps = "  ".join(f"{stage} {count}" for stage, count in config["steps"].items())
    print(f"[export] {values.out}: {config['image_size']} px, VQGAN {config['vqgan']}; {steps}")
    print(f"[export] {NOTICE}")


if __name__ == "__main__":
    # Not at the top: infer and evaluate, which import this file, have an --out of their own.
    flags.DEFINE_string("workdir", None, "Folder of the five stages' runs, as runs/tiny.")
    flags.DEFINE_string("out", None, "Folder of the bundle; one that is there is replaced.")
    flags.mark_flags_as_required(["workdir", "out"])
    command.start("export", main)

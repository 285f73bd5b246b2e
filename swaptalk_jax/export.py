"""Checkpoints -> one inference bundle.

    python -m swaptalk_jax.export --config=configs/sync.py:tiny --out=BUNDLE

Each stage comes from where the config of sync says: sync from `workdir`, VQGAN and expert from
`frozen`, the swap from `bundle`, and the recogniser from where the swap's own config says. So
--config.root=X takes all of them from X.

A bundle is a folder of safetensors files, one per stage, and `config.json`, which holds the
networks' numbers, the sha256 of every file and the fingerprint of the VQGAN whose codes the other
networks speak. Nothing else of a run is needed to infer or evaluate: where a speech network makes
the features of sound, it is part of the bundle.
"""

import jax
from absl import flags
from ml_collections import config_flags

from data_pipelines.errors import SwapTalkError
from data_pipelines.records import reader
from swaptalk_jax import command, stages
from swaptalk_jax.training import upstream
from swaptalk_jax.weights import store
from swaptalk_jax.weights.bundle import DRAWN, NOTICE, export


def main(values):
    """Writes the bundle and tells what is in it."""
    jax.config.update("jax_platforms", "cpu")  # nothing is computed; leave accelerators to others
    parts = stages.bundled()
    folders = upstream.bundled(values.config, parts)
    measuring = {name for name, stage in stages.registered().items() if stage.measures}
    without = measuring if values.for_infer else ()
    faces = _faces(folders["vqgan"])
    config = export(folders, values.out, parts, values.float16, faces, without)
    steps = "  ".join(f"{stage} {count}" for stage, count in config["steps"].items())
    print(f"[export] {values.out}: {config['image_size']} px, VQGAN {config['vqgan']}; {steps}")
    print(f"[export] {NOTICE}")


def _faces(folder):
    """DRAWN where the frames that taught the VQGAN are of the embedded set; None: not known."""
    try:
        data = store.load_config(folder).get("data", {}).get("root", "")
        return DRAWN if reader.metadata(data, "frames").get("source") == "synthetic" else None
    except SwapTalkError:  # the frames are elsewhere now; what else is missing, export tells
        return None


if __name__ == "__main__":
    # Not at the top: infer and evaluate, which import this file, have an --out of their own.
    config_flags.DEFINE_config_file("config", None, "The config of sync, of the size wanted.")
    flags.DEFINE_string("out", None, "Folder of the bundle; one that is there is replaced.")
    flags.DEFINE_boolean("float16", False, "Files of half the size, with rounded numbers.")
    flags.DEFINE_boolean("for_infer", False, "Without the networks that only evaluate asks.")
    flags.mark_flags_as_required(["config", "out"])
    command.start("export", main)

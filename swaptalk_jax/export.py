"""Checkpoints -> one inference bundle: `python -m swaptalk_jax.export --workdir=W --out=BUNDLE`.

A bundle is a folder of safetensors files, one per stage, and `config.json`, which holds the
networks' numbers, the sha256 of every file and the fingerprint of the VQGAN whose codes the other
networks speak. Nothing else of a run is needed to infer or evaluate: where a speech network makes
the features of sound, it is part of the bundle.
"""

import hashlib
import json
import os
import shutil
import uuid
from pathlib import Path

import jax
import numpy as np
from absl import app, flags
from flax import traverse_util
from safetensors.numpy import load as parse_safetensors
from safetensors.numpy import save as to_safetensors

from data_pipelines import records
from swaptalk_jax import checkpoints, progress, speech
from swaptalk_jax.models.vqgan import factor

FORMAT, VERSION = "swaptalk-bundle", 1
# File of the bundle -> stage that trained it and the networks it holds.
FILES = {
    "vqgan": ("vqgan", ("vqgan",)),
    "recogniser": ("identity", ("recogniser",)),
    "expert": ("expert", ("expert",)),
    "swap": ("swap", ("swap",)),
    "sync": ("sync", ("warp", "unet")),
}
NOTICE = (
    "What this bundle makes is generated media. Mark it as such wherever it is shown, and use a "
    "person's face or voice only with that person's consent."
)


def export(workdir, out):
    """Writes the bundle of the five finished stages below `workdir`; returns its config (dict).

    Its recogniser is the one that the swap was trained against, also where it is an imported one.
    The folder `out` appears whole or not at all; a bundle that was there is replaced.
    Raises CheckpointError: a stage is not finished, or was trained on another VQGAN's codes.
    """
    workdir, out = Path(workdir), Path(out)
    if out.exists() and any(out.iterdir()) and not (out / checkpoints.CONFIG).exists():
        raise checkpoints.CheckpointError(f"{out} holds other files; name a new folder for --out")
    stages = {
        stage: _finished(workdir / stage) for stage, _ in FILES.values() if stage != "identity"
    }
    stages["identity"] = _finished(_recogniser(workdir, stages["swap"][1]))
    networks = {
        name: {network: stages[stage][0][network] for network in parts}
        for name, (stage, parts) in FILES.items()
    }
    fingerprint = checkpoints.fingerprint(networks["vqgan"]["vqgan"])
    for stage in ("expert", "swap", "sync"):
        _check_vqgan(workdir / stage, stages[stage][1], fingerprint)
    features = _features(workdir, stages)
    if features.network:
        networks["speech"] = {"speech": features.network[0]}
    blobs = {
        f"{name}.safetensors": to_safetensors(
            {
                key: np.array(value, order="C")
                for key, value in traverse_util.flatten_dict(tree, sep="/").items()
            }
        )
        for name, tree in networks.items()
    }
    configs = {stage: config for stage, (_, config) in stages.items()}
    config = _described(configs, fingerprint, features)
    config["sha256"] = {name: hashlib.sha256(blob).hexdigest() for name, blob in blobs.items()}
    _publish(out, blobs | {checkpoints.CONFIG: json.dumps(config, indent=1).encode()})
    return config


def load(folder):
    """(params: {network: nested dict of NumPy arrays}, config dict) of a bundle.

    Raises CheckpointError: not a bundle, a file is missing, or its bytes are not those that
    `export` wrote.
    """
    folder = Path(folder)
    if not (folder / checkpoints.CONFIG).is_file():
        raise checkpoints.CheckpointError(
            f"{folder}: no bundle here; make one with "
            f"python -m swaptalk_jax.export --workdir=runs/<size> --out={folder}"
        )
    config = checkpoints.load_config(folder)
    if config.get("format") != FORMAT or config.get("version") != VERSION:
        raise checkpoints.CheckpointError(
            f"{folder}: is not a bundle of version {VERSION}; export it again"
        )
    params = {}
    for name, digest in config["sha256"].items():
        try:
            blob = (folder / name).read_bytes()
        except OSError as error:
            raise checkpoints.CheckpointError(
                f"{folder / name}: cannot be read ({error.strerror}); export or copy it again"
            ) from error
        if hashlib.sha256(blob).hexdigest() != digest:
            raise checkpoints.CheckpointError(
                f"{folder / name}: its bytes are not those of config.json (changed, or cut off); "
                "export or copy the bundle again"
            )
        params |= traverse_util.unflatten_dict(parse_safetensors(blob), sep="/")
    return params, config


def _finished(folder):
    """(params, config) of a stage that has all its steps, or of an imported network."""
    if not (folder / checkpoints.PARAMS).exists():
        raise checkpoints.CheckpointError(
            f"{folder}: this stage is not finished; train it with "
            f"python -m swaptalk_jax.train --config=configs/{folder.name}.py"
        )
    return checkpoints.load_network(folder)


def _recogniser(workdir, swap):
    """Folder of the recogniser that the swap's config names; what lies below its root may move."""
    folder, root = Path(swap["frozen"]["recogniser"]), Path(swap["root"])
    return workdir / folder.relative_to(root) if folder.is_relative_to(root) else folder


def _check_vqgan(folder, config, fingerprint):
    """Refuses a stage that was trained on another VQGAN; train.py notes which one it was."""
    other = config["vqgan_fingerprint"]
    if other != fingerprint:
        raise checkpoints.CheckpointError(
            f"{folder}: was trained on another VQGAN ({other}, to be bundled: {fingerprint}); "
            "encode again and train this stage again"
        )


def _features(workdir, stages):
    """The features of sound (speech.Features) that expert and sync were trained on."""
    features = speech.Features(stages["sync"][1]["data"]["features"])
    for stage in ("expert", "sync"):
        other = speech.trained_on(stages[stage][1])
        if other != features.fingerprint:
            raise checkpoints.CheckpointError(
                f"{workdir / stage}: was trained on other features of sound ({other}, to be "
                f"bundled: {features.name}, {features.fingerprint}); train this stage again"
            )
    return features


def _described(configs, fingerprint, features):
    """The bundle's config, less the digests, from the stages' configs."""
    model = {
        network: configs[stage]["model"][network]
        for stage, networks in FILES.values()
        for network in networks
    }
    imported = {
        network: configs[stage]
        for stage, networks in FILES.values()
        for network in networks
        if "network" in configs[stage]
    }
    data = configs["sync"]["data"]
    cell = factor(model["vqgan"]["multipliers"], model["vqgan"].get("patch", 1))
    speech_network = {"speech": features.network[1]} if features.network else {}
    return speech_network | {
        "format": FORMAT,
        "version": VERSION,
        "notice": NOTICE,
        "size": configs["sync"]["size"],
        "image_size": model["swap"]["grid"][0] * cell,
        "grid": model["swap"]["grid"],
        "audio": {
            "features": features.name,
            "width": features.width,
            "context": data["context"],
            "window": data["window"],
        },
        "vqgan": fingerprint,
        "model": model,
        # Of networks that are not our own: class, and file with its licence.
        "networks": {network: config["network"] for network, config in imported.items()},
        "sources": {network: config["source"] for network, config in imported.items()},
        "steps": {
            stage: config["train"]["steps"]
            for stage, config in configs.items()
            if "train" in config
        },
    }


def _publish(out, files):
    """Puts {name: bytes} at `out` as a whole folder, in place of one that is there."""
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(f".{out.name}-{uuid.uuid4().hex[:12]}")  # two exports never share it
    old = part.with_name(f"{part.name}-old")
    try:
        part.mkdir()
        for name, data in files.items():
            (part / name).write_bytes(data)
        if out.exists():
            os.replace(out, old)
        os.replace(part, out)
    finally:
        shutil.rmtree(part, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def main(_):
    """Command line."""
    progress.quiet()
    jax.config.update("jax_platforms", "cpu")  # nothing is computed; leave accelerators to others
    try:
        config = export(flags.FLAGS.workdir, flags.FLAGS.out)
    except (checkpoints.CheckpointError, records.RecordError) as error:
        raise SystemExit(f"[export] {error}") from error
    steps = "  ".join(f"{stage} {count}" for stage, count in config["steps"].items())
    print(
        f"[export] {flags.FLAGS.out}: {config['image_size']} px, VQGAN {config['vqgan']}; {steps}"
    )
    print(f"[export] {NOTICE}")


if __name__ == "__main__":
    # Not at the top: infer and evaluate, which import this file, have an --out of their own.
    flags.DEFINE_string("workdir", None, "Folder of the five stages' runs, as runs/tiny.")
    flags.DEFINE_string("out", None, "Folder of the bundle; one that is there is replaced.")
    flags.mark_flags_as_required(["workdir", "out"])
    app.run(main)

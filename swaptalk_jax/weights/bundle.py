"""The inference bundle: one folder with all networks of a model."""

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from flax import traverse_util
from safetensors.numpy import load as parse_safetensors
from safetensors.numpy import save as to_safetensors

from swaptalk_jax import errors
from swaptalk_jax.models.latent import factor
from swaptalk_jax.weights import store
from swaptalk_jax.weights.provenance import _check_vqgan, _features

FORMAT, VERSION = "swaptalk-bundle", 1
DRAWN = "drawn"  # `faces` of a bundle that knows people of data_pipelines.synthetic alone

NOTICE = (
    "What this bundle makes is generated media. Mark it as such wherever it is shown, and use a "
    "person's face or voice only with that person's consent."
)


def export(
    folders: dict[str, str | os.PathLike],
    out: str | os.PathLike,
    parts: Any,
    float16: bool = False,
    faces: str | None = None,
    without: Collection[str] = (),
) -> dict[str, Any]:
    """Writes the bundle of finished stages; returns its config (dict).

    folders: {stage: folder of its run}, but for that of the recogniser.
    parts: {file of the bundle, without its ending: (stage that trained it, names of the networks in
    it)}, as the stages declare them (stages.bundled).
    float16: files hold half as many bytes; whoever loads them computes in float32 all the same.
    without: stages whose networks are left out; whoever asks for one of them is told.
    faces: DRAWN where all of its training were drawn people.
    Its recogniser is the one that the swap was trained against, also where it is an imported one.
    The folder `out` appears whole or not at all; a bundle that was there is replaced.
    Raises CheckpointError: a stage is not finished, or was trained on another VQGAN's codes.
    """
    folders, out = {stage: Path(folder) for stage, folder in folders.items()}, Path(out)
    if out.exists() and any(out.iterdir()) and not (out / store.CONFIG).exists():
        raise errors.CheckpointError(f"{out} holds other files; name a new folder for --out")
    stages = {stage: _finished(folder, stage) for stage, folder in folders.items()}
    folders["identity"] = _recogniser(folders["swap"], stages["swap"][1])
    stages["identity"] = _finished(folders["identity"], "identity")
    parts = {name: (stage, kept) for name, (stage, kept) in parts.items() if stage not in without}
    networks = {
        name: {network: stages[stage][0][network] for network in kept}
        for name, (stage, kept) in parts.items()
    }
    fingerprint = store.fingerprint(networks["vqgan"]["vqgan"])
    for stage, folder in folders.items():
        if stages[stage][1].get("vqgan_fingerprint"):
            _check_vqgan(folder, stages[stage][1], fingerprint)
    features = _features(folders, stages)
    if features.network:
        networks["speech"] = {"speech": features.network[0]}
    blobs = {
        f"{name}.safetensors": to_safetensors(
            {
                key: np.array(_stored(value, float16), order="C")
                for key, value in traverse_util.flatten_dict(tree, sep="/").items()
            }
        )
        for name, tree in networks.items()
    }
    configs = {stage: config for stage, (_, config) in stages.items()}
    config = _described(configs, parts, fingerprint, features)
    if faces:
        config["faces"] = faces
    config["sha256"] = {name: hashlib.sha256(blob).hexdigest() for name, blob in blobs.items()}
    _publish(out, blobs | {store.CONFIG: json.dumps(config, indent=1).encode()})
    return config


def load(folder: str | os.PathLike) -> tuple[dict[str, Any], dict[str, Any]]:
    """(params: {network: nested dict of NumPy arrays}, config dict) of a bundle.

    Raises CheckpointError: not a bundle, a file is missing, or its bytes are not those that
    `export` wrote.
    """
    folder = Path(folder)
    if not (folder / store.CONFIG).is_file():
        raise errors.CheckpointError(
            f"{folder}: no bundle here; make one with "
            f"python -m swaptalk_jax.export --config=configs/sync.py:<size> --out={folder}"
        )
    config = store.load_config(folder)
    if config.get("format") != FORMAT or config.get("version") != VERSION:
        raise errors.CheckpointError(
            f"{folder}: is not a bundle of version {VERSION}; export it again"
        )
    params: dict[str, Any] = {}
    for name, digest in config["sha256"].items():
        try:
            blob = (folder / name).read_bytes()
        except OSError as error:
            raise errors.CheckpointError(
                f"{folder / name}: cannot be read ({error.strerror}); export or copy it again"
            ) from error
        if hashlib.sha256(blob).hexdigest() != digest:
            raise errors.CheckpointError(
                f"{folder / name}: its bytes are not those of config.json (changed, or cut off); "
                "export or copy the bundle again"
            )
        flat = {k: _computed(v) for k, v in parse_safetensors(blob).items()}
        params |= traverse_util.unflatten_dict(flat, sep="/")
    return params, config


def _stored(array, float16):
    return array.astype(np.float16) if float16 and array.dtype == np.float32 else array


def _computed(array):
    return array.astype(np.float32) if array.dtype == np.float16 else array


def _finished(folder, stage):
    """(params, config) of a stage that has all its steps, or of an imported network."""
    if not (folder / store.PARAMS).exists():
        raise errors.CheckpointError(
            f"{folder}: this stage is not finished; train it with "
            f"python -m swaptalk_jax.train --config=configs/{stage}.py:<size>"
            f" --config.workdir={folder}"
        )
    return store.load_network(folder)


def _recogniser(swap, config):
    """Folder of the recogniser that the config of the run in the folder `swap` names.

    A whole root may have moved since: what was beside the run is looked for there first.
    """
    folder, root = Path(config["frozen"]["recogniser"]), Path(config["root"])
    if not folder.is_relative_to(root):
        return folder
    moved = swap.parent / folder.relative_to(root)
    return moved if moved.exists() else folder


def _described(configs, parts, fingerprint, features):
    """The bundle's config, less the digests, from the stages' configs."""
    model = {
        network: configs[stage]["model"][network]
        for stage, networks in parts.values()
        for network in networks
    }
    imported = {
        network: configs[stage]
        for stage, networks in parts.values()
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
        "inference": configs["sync"].get("inference", {}),  # see inference.swaptalk.Rules
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

"""Finished networks as safetensors beside a config.json: the durable format."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import traverse_util
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from data_pipelines import files
from swaptalk_jax.errors import CheckpointError

PARAMS = "params.safetensors"

CONFIG = "config.json"


def save_network(folder: str | os.PathLike, params: dict[str, Any], config: dict[str, Any]) -> None:
    """Writes params (nested dict of arrays, whole on this host) and config (dict)."""
    flat = traverse_util.flatten_dict(jax.tree.map(np.asarray, params), sep="/")
    files.replace(Path(folder) / CONFIG, json.dumps(config, indent=1).encode())
    # The parameters come last: where they stand, the network is whole.
    files.replace(Path(folder) / PARAMS, save({k: np.array(v, order="C") for k, v in flat.items()}))


def load_config(folder: str | os.PathLike, name: str = CONFIG) -> dict[str, Any]:
    """The config (dict) that made the network or bundle in `folder`."""
    path = Path(folder) / name
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: no readable config ({error})") from error


def load_network(
    folder: str | os.PathLike, name: str = PARAMS
) -> tuple[dict[str, Any], dict[str, Any]]:
    """(params nested dict of NumPy arrays, config dict) of a finished network."""
    path = Path(folder) / name
    if not path.exists():
        raise CheckpointError(f"{path}: no such network; finish training this stage first")
    try:
        flat = load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: not a whole safetensors file ({error})") from error
    return traverse_util.unflatten_dict(flat, sep="/"), load_config(folder)


def fingerprint(params: dict[str, Any]) -> str:
    """16 hex digits that name parameters by their values."""
    digest = hashlib.sha256()
    for key, value in sorted(traverse_util.flatten_dict(params, sep="/").items()):
        digest.update(key.encode())
        digest.update(np.ascontiguousarray(value).tobytes())
    return digest.hexdigest()[:16]

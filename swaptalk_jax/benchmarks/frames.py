"""Frames a second of inference, with random networks of a size."""

import hashlib
import json
import time

import numpy as np
from flax import traverse_util
from safetensors.numpy import save_file

from swaptalk_jax import backend
from swaptalk_jax.benchmarks import random_stage
from swaptalk_jax.configs import common
from swaptalk_jax.inference.edit import edit
from swaptalk_jax.inference.swaptalk import SwapTalk
from swaptalk_jax.planning.abstract import Abstract, upstream
from swaptalk_jax.weights import bundle, store

CHUNKS = 4  # batches of frames in a turn


def write_bundle(config, folder):
    """Writes a bundle of random networks: those of swap and sync, at the size of `config`.

    Returns the width of a token of sound.
    """
    configs, size = upstream(config.size), common.IMAGE_SIZE[config.size]
    known = {}
    swap, sync = (
        Abstract(configs[name], configs.__getitem__, size, known=known) for name in ("swap", "sync")
    )
    shapes = {"vqgan": sync.frozen["vqgan"], "swap": swap.params["swap"], **sync.params}
    params = random_stage.drawn(shapes)
    file = folder / "networks.safetensors"
    save_file(traverse_util.flatten_dict(params, sep="/"), file)
    model = {"vqgan": configs["vqgan"], "swap": configs["swap"]}
    model = {name: c.model[name].to_dict() for name, c in model.items()}
    model |= {name: configs["sync"].model[name].to_dict() for name in ("warp", "unet")}
    width = sync.metadata()["audio_width"]
    data = configs["sync"].data
    described = {
        "format": bundle.FORMAT,
        "version": bundle.VERSION,
        "image_size": size,
        "audio": {"features": "log_mel", "width": width, "context": data.context},
        "inference": configs["sync"].inference.to_dict(),
        "model": model,
        "sha256": {file.name: hashlib.sha256(file.read_bytes()).hexdigest()},
    }
    (folder / store.CONFIG).write_text(json.dumps(described))
    return width


def measure(config, folder, tell, rounds):
    """Tells frames/s of `edit`, cutting and pasting faces included, and of the networks alone.

    A clip of the size's own pictures, each of which is a face; without reading and writing video,
    finding faces and hearing. folder: where the bundle may lie.
    """
    width = write_bundle(config, folder)
    began = time.perf_counter()
    pipe = SwapTalk(folder)
    n, size, context = pipe.batch_size, pipe.size, 2 * pipe.audio["context"]
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (n, size, size, 3), np.uint8)
    windows = rng.standard_normal((n, context, width), np.float32)
    matrices = np.tile(np.float32([[1, 0, 0], [0, 1, 0]]), (CHUNKS * n, 1, 1))
    points = np.tile(size * rng.random((68, 2)), (CHUNKS * n, 1, 1))
    source = pipe.encode(pictures[:1])[0]

    def clip():
        stream = (pictures[i % n].copy() for i in range(CHUNKS * n))
        made = edit(
            pipe,
            stream,
            matrices,
            points,
            source,
            lambda first, count: windows[:count],
            own_reference=True,
            warp=pipe.rules.warps(own_reference=True),
            quantize=pipe.rules.quantize,
        )
        return sum(1 for _ in made)

    def networks():
        z = pipe.swap(source, pipe.encode(pictures))
        warp = pipe.rules.warps(own_reference=True)
        return pipe.decode(pipe.sync(z, z, windows, warp))

    clip()
    tell(batch=n, size=size, starting=time.perf_counter() - began)
    tell(precision=backend.compute_dtype("auto"))
    tell(edit=rates(clip, CHUNKS * n, rounds), networks=rates(networks, n, rounds))


def rates(call, frames, rounds):
    """[least, median, most] frames/s of a call that makes so many frames, in `rounds` turns."""
    taken = []
    for _ in range(rounds):
        began = time.perf_counter()
        call()
        taken.append(frames / (time.perf_counter() - began))
    return [float(f(taken)) for f in (np.min, np.median, np.max)]

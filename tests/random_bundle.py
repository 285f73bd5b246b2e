"""A bundle of random networks at the least sizes that hold together: its pictures are noise."""

import functools
import tempfile
from pathlib import Path

import jax
import numpy as np

from swaptalk_jax import stages as declared
from swaptalk_jax.inference import swaptalk
from swaptalk_jax.models import registry
from swaptalk_jax.sound import Features
from swaptalk_jax.weights import bundle, store

SIZE, GRID, WIDTH, CODES = 16, (8, 8), 4, 24
MODEL = {
    "vqgan": dict(width=4, multipliers=[1, 1], blocks=1, attention=False, embed_dim=4, codes=CODES),
    "recogniser": dict(stages=[1], width=4, embed_dim=8, input_size=8),
    "expert": dict(width=4, multipliers=[1], audio_width=8, audio_blocks=1, embed_dim=8),
    "swap": dict(blocks=1, width=8, heads=2, ffn_width=8, embed_dim=4, grid=list(GRID)),
    "warp": dict(width=4, depth=1, attention=True),
    "unet": dict(
        width=8, multipliers=[1], blocks=1, attention_levels=[], heads=1, context_width=8,
        embed_dim=4, groups=0, residual=True,
    ),
}  # fmt: skip
DATA = dict(features="log_mel", context=2, window=5)
AUDIO = 160  # width of log_mel


def inputs(name):
    """Example arguments of a network's init."""
    z, half = np.zeros((1, *GRID, WIDTH), np.float32), np.zeros((1, 4, 8, WIDTH), np.float32)
    image, sound = np.zeros((1, SIZE, SIZE, 3), np.float32), np.zeros((1, 4, AUDIO), np.float32)
    return {
        "vqgan": (image,),
        "recogniser": (image,),
        "expert": (np.zeros((1, 5, 4, 8, WIDTH), np.float32), np.zeros((1, 10, AUDIO), np.float32)),
        "swap": (z, z),
        "warp": (half, half, half),
        "unet": (half, sound),
    }[name]


def parameters(name, seed=0):
    """Random parameters of a network: drawn, not initialised, which would take a compilation."""
    rng = np.random.default_rng(seed)
    model = registry.build(name, MODEL[name])
    shapes = jax.eval_shape(model.init, jax.random.key(0), *inputs(name))["params"]
    return jax.tree.map(lambda x: rng.normal(0, 0.3, x.shape).astype(np.float32), shapes)


def train(workdir, seed=0, stages=("vqgan", "identity", "expert", "swap", "sync")):
    """Leaves below workdir what five finished trainings would leave."""
    for stage, networks in declared.bundled().values():
        if stage not in stages:
            continue
        own = stage in ("identity", "vqgan")  # trained on pictures, not on codes
        config = {
            "stage": stage,
            "size": "random",
            "model": {name: MODEL[name] for name in networks},
            "data": DATA | {"root": f"{workdir}/codes"},
            "root": str(workdir),
            "frozen": {"recogniser": f"{workdir}/identity"},
            "vqgan_fingerprint": None if own else store.fingerprint(parameters("vqgan", seed)),
            "sound_fingerprint": Features(DATA["features"]).fingerprint,
            "train": {"steps": 7},
        }
        params = {name: parameters(name, seed) for name in networks}
        store.save_network(Path(workdir) / stage, params, config)


def folders(workdir):
    """{stage: its folder} of what `train` has left below workdir, as bundle.export takes them."""
    names = [stage for stage, _ in declared.bundled().values() if stage != "identity"]
    return {stage: Path(workdir) / stage for stage in names}


@functools.cache
def folder():
    """The bundle's folder, made once in a session; never write into it."""
    root = Path(_folder().name)
    train(root / "runs")
    bundle.export(folders(root / "runs"), root / "bundle", declared.bundled())
    return root / "bundle"


@functools.cache
def pipe():
    """The bundle, loaded once, so that every function is compiled once."""
    return swaptalk.SwapTalk(folder(), batch_size=4)


@functools.cache
def _folder():
    return tempfile.TemporaryDirectory(prefix="random-bundle-")

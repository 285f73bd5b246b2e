"""Data on the devices give the batches of the streaming loader, bit for bit."""

import os
import subprocess
import sys

import numpy as np
import pytest
import record_sets
from places import ROOT

from data_pipelines.loading import loader

COMPARE = """
import itertools, sys, jax, numpy as np
from ml_collections import ConfigDict
from swaptalk_jax.training import sharding
from swaptalk_jax.training.setup import Batches

root, view, devices = sys.argv[1], sys.argv[2], int(sys.argv[3])
assert jax.device_count() == devices
data = {"root": root, "workers": 0, "resident": True}
c = ConfigDict({"data": data, "seed": 3})
c.train = {"batch_size": int(sys.argv[4]), "eval_batch_size": 1, "accumulate": 1}
mesh = sharding.make_mesh({"data": -1})
held = Batches(c, view, mesh)
c.data.resident = False
streamed = Batches(c, view, mesh)
whole = jax.jit(held.whole)
for rows, batch in itertools.islice(zip(held.training(2), streamed.training(2)), 6):
    found = whole(held.held, rows)
    assert found.keys() == batch.keys()
    for name, value in batch.items():
        assert found[name].dtype == value.dtype, name
        np.testing.assert_array_equal(np.asarray(found[name]), np.asarray(value), name)
        assert rows[name].nbytes <= value.nbytes
for array in held.held.values():
    shards = {s.device: s.data.shape[0] for s in array.addressable_shards}
    assert len(shards) == devices and set(shards.values()) == {array.shape[0] // devices}
print("same")
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Clips of unlike lengths and triples, of random numbers."""
    root, rng = tmp_path_factory.mktemp("records"), np.random.default_rng(0)
    clips = [
        {
            "name": f"clip{i}",
            "identity": i % 2,
            "first": 0,
            "codes": rng.integers(0, 2**16, (frames, 4, 2)).astype(np.uint16),
            "features": rng.normal(size=(2 * frames - short, 3)).astype(np.float16),
            "embedding": np.zeros(2, np.float32),
        }
        for i, (frames, short) in enumerate([(20, 0), (7, 3), (5, 4), (31, 1), (12, 0)] * 2)
    ]
    record_sets.write(root, "codes", record_sets.CODES, {"train": clips})
    swaps = []
    for i in range(11):
        grids = {k: rng.integers(0, 2**16, (4, 2)).astype(np.uint16) for k in SIDES}
        known = {f"id_{k}": rng.normal(size=2).astype(np.float32) for k in ("source", "result")}
        swaps.append(grids | known | {"source_identity": i, "target_identity": -i})
    record_sets.write(root, "swaps", record_sets.CODES, {"train": swaps})
    return root


SIDES = ("source", "target", "result")


@pytest.mark.parametrize(
    "view, devices, size",
    [("pairs", 1, 8), ("pairs", 4, 8), ("windows", 4, 7), ("swaps", 4, 3)],
)
def test_the_batches_are_those_of_the_streaming_loader(root, view, devices, size):
    done = subprocess.run(
        [sys.executable, "-c", COMPARE, str(root), view, str(devices), str(size)],
        cwd=ROOT,
        env=os.environ | {"JAX_NUM_CPU_DEVICES": str(devices), "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and done.stdout == "same\n", done.stderr[-2000:]


def test_workers_draw_the_same_rows(root):
    _, view = loader.resident({"root": root}, "train", "windows")
    alone, shared = (
        loader.dataset({"root": root}, "train", view, 8, 3, workers=workers) for workers in (0, 2)
    )
    for _ in range(3):
        a, b = next(alone), next(shared)
        for name in a:
            assert a[name].dtype == np.int32
            np.testing.assert_array_equal(a[name], b[name])


def test_images_do_not_lie_on_devices(root):
    with pytest.raises(ValueError, match="the view images has no resident data"):
        loader.resident({"root": root}, "train", "images")

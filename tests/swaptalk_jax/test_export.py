"""The command that makes a bundle: each stage from where the config says."""

import json
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
import random_bundle
from places import ROOT

from swaptalk_jax import export, stages
from swaptalk_jax.errors import CheckpointError
from swaptalk_jax.inference import swaptalk
from swaptalk_jax.weights import bundle, store


def run(*flags):
    """(exit code, output) of the command."""
    command = [sys.executable, "-m", "swaptalk_jax.export", "--config=configs/sync.py:micro"]
    done = subprocess.run([*command, *flags], cwd=ROOT, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def test_export_takes_stages_from_where_the_config_says(tmp_path):
    runs, out = tmp_path / "runs", tmp_path / "a bundle"
    random_bundle.train(runs)
    runs.rename(tmp_path / "moved")  # the swap's config still names the recogniser below `runs`
    (tmp_path / "moved" / "swap").rename(tmp_path / "swap")
    shutil.copytree(tmp_path / "moved" / "identity", tmp_path / "identity")
    code, told = run(
        *(f"--config.root={tmp_path / 'moved'}", f"--config.bundle.swap={tmp_path / 'swap'}"),
        f"--out={out}",
    )
    assert code == 0, told
    params, config = bundle.load(out)
    expected = store.load_network(tmp_path / "swap")[0]["swap"]
    assert store.fingerprint(params["swap"]) == store.fingerprint(expected)
    assert set(config["steps"]) == {"vqgan", "identity", "expert", "swap", "sync"}
    code, told = run(f"--config.root={tmp_path / 'nowhere'}", f"--out={out}")
    assert code and f"{tmp_path}/nowhere/vqgan: this stage is not finished" in told
    assert "--config.workdir=" in told and "Traceback" not in told


def test_a_bundle_of_half_the_bytes_computes_nearly_the_same(tmp_path):
    random_bundle.train(tmp_path / "runs")
    whole, _ = bundle.load(random_bundle.folder())
    flags = (f"--config.root={tmp_path / 'runs'}", f"--out={tmp_path / 'half'}", "--float16")
    assert run(*flags)[0] == 0
    assert run(*flags[:1], f"--out={tmp_path / 'infer'}", "--for_infer")[0] == 0
    half, _ = bundle.load(tmp_path / "half")
    few, config = bundle.load(tmp_path / "infer")
    assert set(few) == set(config["model"]) == set(whole) - {"recogniser", "expert"}
    pipe = swaptalk.SwapTalk(tmp_path / "infer")
    with pytest.raises(CheckpointError, match="without its recogniser; export it again"):
        pipe.embed(np.zeros((1, random_bundle.SIZE, random_bundle.SIZE, 3), np.uint8))
    assert jax.tree.map(np.shape, half) == jax.tree.map(np.shape, whole)
    for one, other in zip(jax.tree.leaves(half), jax.tree.leaves(whole), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-7)
    sizes = [
        sum(path.stat().st_size for path in folder.glob("*.safetensors"))
        for folder in (tmp_path / "half", random_bundle.folder())
    ]
    assert sizes[0] < 0.65 * sizes[1]  # heads of so small networks are as large as they


def test_the_recogniser_is_the_one_that_the_swap_was_trained_against(tmp_path):
    """Also where it is of another root, as that of a run with another f is."""
    runs, f8 = tmp_path / "f16", tmp_path / "f8"
    random_bundle.train(runs)
    random_bundle.train(f8, seed=1, stages=("vqgan", "expert", "swap", "sync"))
    config = json.loads((f8 / "swap" / "config.json").read_text())
    config["frozen"]["recogniser"] = str(runs / "identity")
    (f8 / "swap" / "config.json").write_text(json.dumps(config))
    bundle.export(random_bundle.folders(f8), tmp_path / "bundle", stages.bundled())
    params, _ = bundle.load(tmp_path / "bundle")
    expected = store.load_network(runs / "identity")[0]["recogniser"]
    assert store.fingerprint(params["recogniser"]) == store.fingerprint(expected)


def test_a_bundle_says_where_all_faces_were_drawn(tmp_path, monkeypatch):
    store.save_network(tmp_path / "vqgan", {}, {"data": {"root": "faces"}})
    assert export._faces(tmp_path / "vqgan") is None  # its frames are not there
    assert export._faces(tmp_path / "nowhere") is None
    for source, expected in (("synthetic", "drawn"), ("videos", None)):
        monkeypatch.setattr(export.reader, "metadata", lambda *_, s=source: {"source": s})
        assert export._faces(tmp_path / "vqgan") == expected
    random_bundle.train(tmp_path / "runs")
    folders = random_bundle.folders(tmp_path / "runs")
    told = bundle.export(folders, tmp_path / "b", stages.bundled(), faces="drawn")
    assert told["faces"] == bundle.load(tmp_path / "b")[1]["faces"] == "drawn"
    assert "faces" not in bundle.export(folders, tmp_path / "b", stages.bundled())

"""What a stage needs, and the commands that make it: as the user's flags say."""

import json
import subprocess
import sys

import pytest
from places import ROOT

from swaptalk_jax import errors, stages
from swaptalk_jax.configs import expert, identity, swap, sync, vqgan
from swaptalk_jax.training import upstream
from swaptalk_jax.weights import store

TELL = """
import json, sys
from absl import app, flags
from ml_collections import config_flags
from swaptalk_jax.training import upstream
config_flags.DEFINE_config_file("config")
def main(_):
    config = flags.FLAGS.config
    needs = [[str(need.path), *need.command] for need in upstream.needs(config)]
    print(json.dumps({"config": json.loads(config.to_json()), "needs": needs}))
app.run(main)
"""


def told(*flags):
    """A config and its needs, as the real flags make them."""
    command = [sys.executable, "-c", TELL, *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_flags_move_everything_and_reach_what_is_built_upstream(tmp_path):
    root, sound = tmp_path / "a b", tmp_path / "hubert_base"
    found = told(
        "--config=configs/sync.py:tiny",
        *(f"--config.root={root}", "--config.data.window=3", f"--config.data.features={sound}"),
        f"--config.frozen.vqgan={tmp_path / 'mine'}",
    )
    c = found["config"]
    assert c["workdir"] == f"{root}/sync" and c["compile_cache"] == f"{root}/compiled"
    frozen = {"vqgan": str(tmp_path / "mine")} | {n: f"{root}/{n}" for n in ("expert", "swap")}
    assert c["frozen"] == frozen
    needs = {line[0]: line[1:] for line in found["needs"]}
    carried = [
        *(f"--config.root={root}", f"--config.data.features={sound}", "--config.data.window=3")
    ]
    data = needs[f"{root}/data/triples/1.0.0/dataset_info.json"]
    assert data[:3] == ["-m", "data_pipelines.build", f"--out={root}/data"]
    assert {"--size=64", "--source=synthetic", "--triples=2400"} < set(data)
    own = ["-m", "swaptalk_jax.train", "--config=configs/expert.py:tiny", *carried]
    assert needs[f"{root}/expert/params.safetensors"] == own
    mine = needs[str(tmp_path / "mine" / store.PARAMS)]
    assert mine[2:] == [
        *("--config=configs/vqgan.py:tiny", *carried, f"--config.workdir={tmp_path / 'mine'}")
    ]
    # Codes are made by the VQGAN that was chosen, from the sound that was.
    codes = needs[f"{root}/codes/encode.json"]
    assert codes == [
        *("-m", "swaptalk_jax.encode", "--config=configs/vqgan.py:tiny", *carried),
        *(f"--config.workdir={tmp_path / 'mine'}", f"--out={root}/codes"),
    ]
    place = needs[str(sound / store.PARAMS)]
    assert place[2:] == ["place", "hubert_base", "<file>", f"--out={tmp_path}"]


def test_data_that_the_user_has_are_data(tmp_path):
    faces = tmp_path / "faces" / "frames" / "1.0.0"
    faces.mkdir(parents=True)
    (faces / "dataset_info.json").touch()  # and no triples, which these stages do without
    for module in (identity, vqgan):
        c = module.get_config("small")
        c.data.root, c.frozen, c.needs = str(tmp_path / "faces"), {}, ("data",)
        upstream.prepare(c)
    # Where codes stand, what only makes codes is not asked for.
    c = expert.get_config("tiny")
    c.data.root = str(tmp_path / "codes")
    assert len(list(upstream.needs(c))) == 3
    (tmp_path / "codes").mkdir()
    (tmp_path / "codes" / "encode.json").touch()
    assert [need.path.parent.name for need in upstream.needs(c)] == ["vqgan", "codes"]
    # The recogniser behind a swap's losses is no matter of the codes alone.
    c = swap.get_config("tiny")
    c.data.root = str(tmp_path / "codes")
    paths = [need.path.parent.name for need in upstream.needs(c)]
    assert paths == ["identity", "vqgan", "codes"]


def test_the_recogniser_that_was_chosen_encodes_and_judges(tmp_path):
    c = swap.get_config("small")
    c.frozen.recogniser = "runs/pretrained/sface"
    for name in ("codes", "vqgan"):
        assert "--config.frozen.recogniser=runs/pretrained/sface" in upstream.command(c, name)
    assert not [a for a in upstream.command(c, "expert") if "recogniser" in a]


def test_codes_are_made_by_the_vqgan_of_the_folder_that_was_chosen():
    c = vqgan.get_config("tiny")
    c.workdir = "/f8/vqgan"
    (own,) = [n for n in upstream.needs(c, "vqgan") if n.path.parent.name == "vqgan"]
    assert str(own.path.parent) == c.workdir and own.command[-1] == "--config.workdir=/f8/vqgan"


def test_a_missing_network_is_an_error_with_the_command_that_gets_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # nothing of a user's own runs is here
    for module, size, line in (
        (vqgan, "small", "train --config=configs/identity.py:small"),
        (swap, "paper", "pretrained place arcface_r50 '<file>'"),
        (vqgan, "paper", "pretrained place vgg16 '<file>'"),
        (vqgan, "open", "pretrained fetch stlpips"),
    ):
        c = module.get_config(size)
        c.needs = tuple(need for need in c.needs if need not in ("data", "vqgan", "codes"))
        with pytest.raises(errors.RunError) as error:
            upstream.prepare(c)
        assert str(error.value).splitlines()[-1].endswith(line), error.value
    for size, line in (("open", "fetch whisper_tiny_en"), ("paper", "place hubert_base")):
        c = sync.get_config(size)
        c.needs = ("codes",)
        with pytest.raises(errors.RunError, match=f"pretrained {line}"):
            upstream.prepare(c)
    c = vqgan.get_config()
    with pytest.raises(errors.RunError, match="--proxy=inswapper .*--triples=109000"):
        upstream.prepare(c)
    c.needs, c.frozen = (), {"recogniser": str(tmp_path / "sface"), "perceptual": ""}
    with pytest.raises(errors.RunError, match=f"pretrained fetch sface --out={tmp_path}"):
        upstream.prepare(c)
    (tmp_path / "sface").mkdir()
    (tmp_path / "sface" / store.PARAMS).touch()
    upstream.prepare(c)


def test_a_command_with_spaces_in_its_paths_is_run_as_it_is(tmp_path):
    c = identity.get_config("micro")
    c.root = str(tmp_path / "all my runs")
    c.build.update(identities=2, val_identities=1, clips=1, triples=1, val_triples=1)
    upstream.prepare(c)
    assert (tmp_path / "all my runs" / "data" / "frames" / "1.0.0" / "metadata.json").exists()
    assert list(tmp_path.iterdir()) == [tmp_path / "all my runs"]


def test_a_bundle_takes_each_stage_from_where_the_config_of_sync_says():
    c = sync.get_config("tiny")
    c.root = "/moved"
    c.frozen.vqgan, c.bundle.swap = "/f8/vqgan", "/other/swap"
    assert upstream.bundled(c, stages.bundled()) == {
        "vqgan": "/f8/vqgan",
        "expert": "/moved/expert",
        "swap": "/other/swap",
        "sync": "/moved/sync",
    }
    with pytest.raises(errors.RunError, match="config of sync, not of swap"):
        upstream.bundled(swap.get_config("tiny"), stages.bundled())

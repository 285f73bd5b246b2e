"""Encoding: codes of the right frames, whatever was killed, however the data were sharded."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import record_sets
from places import ROOT

from data_pipelines.media import log_mel
from data_pipelines.records import kinds, reader, shards
from swaptalk_jax.configs import identity, vqgan
from swaptalk_jax.encoding import sets
from swaptalk_jax.models import registry
from swaptalk_jax.weights import store

SIZE, FRAMES, CLIPS = 32, 6, 5


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """The micro VQGAN's config with random networks and random faces of three shards of clips."""
    root = tmp_path_factory.mktemp("encode")
    c = vqgan.get_config("micro")
    c.workdir, c.frozen.recogniser, c.data.root = (str(root / n) for n in ("vqgan", "id", "data"))
    image, rng = jnp.zeros((1, SIZE, SIZE, 3)), np.random.default_rng(0)
    for folder, name, model in (
        (c.workdir, "vqgan", registry.build("vqgan", c.model.vqgan)),
        (
            c.frozen.recogniser,
            "recogniser",
            registry.build("recogniser", identity.get_config("micro").model.recogniser),
        ),
    ):
        shapes = jax.eval_shape(model.init, jax.random.key(0), image)["params"]
        params = {name: jax.tree.map(lambda x: rng.normal(0, 0.1, x.shape).astype(x.dtype), shapes)}
        fields = (vqgan if name == "vqgan" else identity).get_config("micro").model.to_dict()
        store.save_network(folder, params, {"model": fields})
    images = rng.integers(0, 255, (CLIPS * FRAMES, SIZE, SIZE, 3), dtype=np.uint8)
    frame = {"landmarks": np.zeros((68, 2), np.float32), "matrix": np.zeros((2, 3), np.float32)}
    frames = [
        frame | {"image": kinds.encode_image(x), "identity": i // FRAMES, "clip": "c", "frame": i}
        for i, x in enumerate(images)
    ]
    sound = rng.integers(-9999, 9999, (CLIPS, FRAMES * 640)).astype(np.int16)
    clips = [
        {
            "name": f"clip{i}", "identity": i, "identity_name": str(i), "first": i * FRAMES,
            "frames": FRAMES, "audio": sound[i], "meta": "{}",
        }
        for i in range(CLIPS)
    ]  # fmt: skip
    triples = [
        {
            "source": int(a), "target": int(b), "result": kinds.encode_image(images[a]),
            "source_identity": a // FRAMES, "target_identity": b // FRAMES,
        }
        for a, b in rng.integers(0, CLIPS * FRAMES, (7, 2))
    ]  # fmt: skip
    known = {"size": SIZE, "identities": [str(i) for i in range(CLIPS)]}
    for kind, made in (("frames", frames), ("clips", clips), ("triples", triples)):
        record_sets.write(c.data.root, kind, known, {"train": made}, per_shard=2)
    return c


def test_codes_are_those_of_each_clips_frames_and_triples(config, tmp_path):
    sets.Encoding(config, tmp_path, batch_size=4).run()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["codes", "swaps"]
    params, made = store.load_network(config.workdir)
    model = registry.build("vqgan", made["model"]["vqgan"])
    codes = []
    for i in range(CLIPS):
        record = reader.source(tmp_path, "codes", "train")[i]
        frames = [
            reader.source(config.data.root, "frames", "train")[i * FRAMES + k]
            for k in range(FRAMES)
        ]
        image = np.stack([kinds.decode_image(f["image"]) for f in frames]) / 127.5 - 1
        z = model.apply({"params": params["vqgan"]}, image.astype(np.float32), method="encode")
        wanted = model.apply({"params": params["vqgan"]}, z, method="nearest")
        assert (record["codes"] == np.asarray(wanted)).mean() > 0.99  # rounding may tip a tie
        sound = reader.source(config.data.root, "clips", "train")[i]["audio"] / 32768
        wanted = log_mel.log_mel(sound.astype(np.float32))
        np.testing.assert_allclose(record["features"], wanted, atol=2e-3)
        codes.append(record["codes"])
    codes = np.concatenate(codes)
    swaps = reader.source(tmp_path, "swaps", "train")
    for i, triple in enumerate(reader.source(config.data.root, "triples", "train")):
        for name in ("source", "target"):
            np.testing.assert_array_equal(swaps[i][name], codes[triple[name]])
        np.testing.assert_array_equal(swaps[i]["result"], codes[triple["source"]])
        np.testing.assert_allclose(swaps[i]["id_result"], swaps[i]["id_source"], atol=1e-5)


@pytest.mark.parametrize("killed_at", [1, 4])
def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(
    config, tmp_path, monkeypatch, killed_at
):
    sets.Encoding(config, tmp_path / "whole", batch_size=4).run()
    write, calls = shards.Shards.write, []

    def killed(self, split, shard, made):
        calls.append(shard)
        if len(calls) > killed_at:
            raise KeyboardInterrupt
        write(self, split, shard, made)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(shards.Shards, "write", killed)
        sets.Encoding(config, tmp_path / "killed", batch_size=4).run()
    calls.clear()

    def counted(self, split, shard, made):
        calls.append((self.kind, shard))
        write(self, split, shard, made)

    with monkeypatch.context() as patch:
        patch.setattr(shards.Shards, "write", counted)
        sets.Encoding(config, tmp_path / "killed", batch_size=4).run()
    assert len(calls) == 3 + 4 - killed_at  # 3 shards of clips, 4 of triples
    assert_same_files(tmp_path / "whole", tmp_path / "killed")


def test_two_hosts_make_the_set_of_one(config, tmp_path):
    sets.Encoding(config, tmp_path / "one", batch_size=4).run()
    program = tmp_path / "given.py"
    program.write_text(
        "import json\nfrom ml_collections import ConfigDict\n"
        f"def get_config():\n    plain = json.loads({config.to_json()!r})\n"
        "    return ConfigDict(plain | {'needs': ()})\n"
    )
    command = [
        *(sys.executable, "launch/local.py", "--processes=2", "--devices_per_process=2"),
        *("--restarts=0", "--", sys.executable, "-m", "swaptalk_jax.encode"),
        *(
            f"--config={program}",
            f"--out={tmp_path}/two",
            "--batch_size=8",
        ),  # four a device, as there
        f"--config.compile_cache={tmp_path}/compiled",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "two" / sets.DONE).exists()
    (tmp_path / "two" / sets.DONE).unlink()
    told = [[x for x in done.stdout.splitlines() if x.startswith(f"{i}: ")] for i in range(2)]
    told = ["\n".join(lines) for lines in told]
    # Of three shards of clips the first host makes two: both had work.
    assert all("images" in text for text in told)
    assert_same_records(tmp_path / "one", tmp_path / "two")


def assert_same_records(one, other):
    """Sums of other thread counts differ in their last bits, which may decide between two codes."""
    files = [sorted(p.relative_to(x) for p in x.rglob("*")) for x in (one, other)]
    assert files[0] == files[1]
    for kind in ("codes", "swaps"):
        assert reader.metadata(one, kind) == reader.metadata(other, kind)
        pairs = list(zip(*(reader.source(x, kind, "train") for x in (one, other)), strict=True))
        assert pairs
        for name in pairs[0][0]:
            values = [
                np.asarray([np.ravel(x[name]) for x in side]) for side in zip(*pairs, strict=True)
            ]
            if "float" in str(values[0].dtype):
                np.testing.assert_allclose(*values, atol=1e-5)
            else:  # codes of random networks lie closer together than those of trained ones
                assert np.mean(values[0] == values[1]) > 0.99, name


def assert_same_files(one, other):
    for path in one.rglob("*"):
        again = other / path.relative_to(one)
        assert path.is_dir() or path.read_bytes() == again.read_bytes(), path
    assert sorted(p.name for p in other.iterdir()) == ["codes", "swaps"]

"""Public face recognisers: their files, and the networks that they become."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import random_bundle
from places import GOLDEN as GOLDEN_DIR

from swaptalk_jax import errors, pretrained, stages
from swaptalk_jax.inference import swaptalk
from swaptalk_jax.models.blocks import cut
from swaptalk_jax.models.public.iresnet import ARCFACE_BOX
from swaptalk_jax.models.registry import build
from swaptalk_jax.pretrained import __main__ as command
from swaptalk_jax.pretrained import mobilefacenet
from swaptalk_jax.weights import bundle, finished

GOLDEN = np.load(GOLDEN_DIR / "mobilefacenet.npz")


def built(importer, path, **more):
    """(network, parameters) of a file."""
    params, fields = importer.read(path)
    fields = json.loads(json.dumps(fields))  # as they come back from a config.json
    return build("recogniser", fields | more, importer.NETWORKS[0].module), params


def relative(ours, theirs):
    """max |a - b| / max |b|."""
    return abs(np.asarray(ours) - theirs).max() / abs(theirs).max()


@pytest.mark.parametrize("name", ["folded", "unfolded", "int8", "float"])
def test_an_imported_onnx_file_embeds_as_onnxruntime_does(exports, name):
    onnxruntime = pytest.importorskip("onnxruntime")
    importer, path, pixels = exports[name]
    model, params = built(importer, path, box=(0, 0, 1, 1))
    shape = (2, model.input_size, model.input_size, 3)
    x = np.random.default_rng(1).uniform(-1, 1, shape).astype(np.float32)
    session = onnxruntime.InferenceSession(path)
    (theirs,) = session.run(None, {"data": np.float32(pixels(x)).transpose(0, 3, 1, 2)})
    theirs /= np.linalg.norm(theirs, axis=1, keepdims=True)
    assert relative(jax.jit(model.apply)({"params": params}, x), theirs) < 1e-5


def test_an_imported_tflite_file_embeds_as_litert_did(tiny_tflite):
    model, params = built(mobilefacenet, tiny_tflite, box=(0, 0, 1, 1))
    embedding = jax.jit(model.apply)({"params": params}, GOLDEN["image"])
    assert relative(embedding, GOLDEN["embedding"]) < 1e-5


@pytest.mark.parametrize("name", ["arcface", "sface", "mobilefacenet"])
def test_gradients_are_finite_and_agree_with_finite_differences(exports, tiny_tflite, name):
    path = {"arcface": "folded", "sface": "int8"}
    path = exports[path[name]][1] if name in path else tiny_tflite
    model, params = built(getattr(pretrained, name), path)
    rng = np.random.default_rng(2)
    x = rng.uniform(-1, 1, (2, 24, 24, 3)).astype(np.float32)
    towards = rng.normal(size=model.embed_dim).astype(np.float32)

    @jax.jit
    def value_and_gradient(x):
        of_x = functools.partial(model.apply, {"params": params})
        return jax.value_and_grad(lambda x: jnp.sum(of_x(x) @ towards))(x)

    gradient = np.asarray(value_and_gradient(x)[1])
    assert np.isfinite(gradient).all()
    directions = rng.choice([-1.0, 1.0], (6, *x.shape)).astype(np.float32)
    step = 5e-4  # few PReLUs change their side, and float32 still resolves the difference
    wanted = [
        np.subtract(*(float(value_and_gradient(x + s * d)[0]) for s in (step, -step))) / (2 * step)
        for d in directions
    ]
    got = (directions * gradient).sum((1, 2, 3, 4))
    assert np.linalg.norm(got - wanted) < 0.1 * np.linalg.norm(wanted)


def test_embeddings_have_norm_one_and_look_only_into_the_box(tiny_tflite):
    model, params = built(mobilefacenet, tiny_tflite)
    x = np.random.default_rng(3).uniform(-1, 1, (1, 50, 50, 3)).astype(np.float32)
    apply = jax.jit(model.apply)
    embedding = apply({"params": params}, x)
    assert embedding.dtype == jnp.float32 and embedding.shape == (1, 5)
    assert float(jnp.linalg.norm(embedding)) == pytest.approx(1, abs=1e-5)
    around = x.copy()
    around[:, 6:44, 6:44] = 0  # round(.116 * 50), round(.876 * 50)
    assert (apply({"params": params}, x - around) == embedding).all()
    inside = x.copy()
    inside[:, 6:44, 6:44] += 0.1
    assert (apply({"params": params}, inside) != embedding).any()


def test_the_box_shows_what_arcfaces_template_shows():
    # FFHQ's quad by its own rule, for a face whose eyes and mouth corners lie as in the template.
    eyes, mouth = (51.6 + 0.5) / 112, (92.3 + 0.5) / 112
    apart, down = (73.5 - 38.3) / 112, mouth - eyes
    side = 2 * max(2.0 * apart, 1.8 * down)
    top = eyes + 0.1 * down - side / 2
    box = np.array([-top, 0.5 - (0.5 - side / 2), 1 - top, side / 2 + 0.5]) / side
    box[1], box[3] = (side / 2 - 0.5) / side, (side / 2 + 0.5) / side
    assert np.allclose(box, ARCFACE_BOX, atol=0.02)
    image = np.arange(100.0).reshape(1, 100, 1, 1) * np.ones((1, 1, 100, 3))
    rows = np.asarray(cut(jnp.asarray(image), ARCFACE_BOX, 76))[0, :, 0, 0]
    assert (rows == np.arange(12, 88)).all()


def test_a_stage_builds_the_network_that_the_folder_names(tiny_tflite, tmp_path):
    network = pretrained.networks()["mobilefacenet"]
    command.install(network, tiny_tflite, tmp_path)
    loaded = finished.FinishedNetwork(tmp_path / "mobilefacenet", "recogniser", jnp.float32)
    assert type(loaded.model).__name__ == "MobileFaceNet" and loaded.model.embed_dim == 5
    image = np.zeros((1, 16, 16, 3), np.float32)
    assert jax.jit(loaded.apply)(loaded.params(), image).shape == (1, 5)
    with pytest.raises(errors.CheckpointError, match="holds no vqgan"):
        finished.FinishedNetwork(tmp_path / "mobilefacenet", "vqgan", jnp.float32)
    config = tmp_path / "mobilefacenet" / "config.json"
    config.write_text(config.read_text().replace("MobileFaceNet", "FaceNet2050", 1))
    with pytest.raises(errors.CheckpointError, match="'FaceNet2050', which is no recogniser"):
        finished.FinishedNetwork(tmp_path / "mobilefacenet", "recogniser", jnp.float32)


def test_a_bundle_holds_an_imported_recogniser(tiny_tflite, tmp_path):
    runs, place = tmp_path / "runs", tmp_path / "pretrained"
    command.install(pretrained.networks()["mobilefacenet"], tiny_tflite, place)
    random_bundle.train(runs, stages=("vqgan", "expert", "swap", "sync"))  # and no identity
    config = json.loads((runs / "swap" / "config.json").read_text())
    config["frozen"]["recogniser"] = str(place / "mobilefacenet")
    (runs / "swap" / "config.json").write_text(json.dumps(config))
    made = bundle.export(random_bundle.folders(runs), tmp_path / "bundle", stages.bundled())
    assert made["networks"] == {"recogniser": "MobileFaceNet"}
    assert made["sources"]["recogniser"]["licence"] == "MIT"
    images = np.random.default_rng(4).integers(0, 255, (2, 16, 16, 3), np.uint8)
    embedding = swaptalk.SwapTalk(tmp_path / "bundle", batch_size=2).embed(images)
    model, params = built(mobilefacenet, tiny_tflite)
    wanted = jax.jit(model.apply)({"params": params}, images.astype(np.float32) / 127.5 - 1)
    assert np.allclose(embedding, wanted, atol=1e-5)

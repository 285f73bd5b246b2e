"""The command `swaptalk`: all commands under one name.

    swaptalk train --config=configs/sync.py:tiny
    swaptalk infer --bundle=B --source=face.jpg --target=clip.mp4 --out=out.mp4
    swaptalk train --help

`swaptalk train` does what `python -m swaptalk_jax.train` does. Only the module of the chosen
command is imported.
"""

import runpy
import sys

from swaptalk_jax import __version__

# Name -> (module, what it does in a line).
COMMANDS = {
    "demo": ("swaptalk_jax.demo", "a first clip in a minute, before anything is trained"),
    "build": ("data_pipelines.build", "videos -> face shards"),
    "train": ("swaptalk_jax.train", "trains one stage"),
    "encode": ("swaptalk_jax.encode", "face shards -> code shards"),
    "export": ("swaptalk_jax.export", "finished stages -> one bundle"),
    "infer": ("swaptalk_jax.infer", "one video with another face and other words"),
    "evaluate": ("swaptalk_jax.evaluate", "how good a bundle is, on people it never saw"),
    "benchmark": ("swaptalk_jax.benchmark", "how fast a stage trains, and what it waits for"),
    "pretrained": ("swaptalk_jax.pretrained", "public networks: list, fetch, place"),
}


def usage() -> str:
    """The text of `swaptalk --help`."""
    rows = (f"  {name:<11}{text}" for name, (_, text) in COMMANDS.items())
    head = "usage: swaptalk COMMAND ...\n       swaptalk COMMAND --help\n       swaptalk --version"
    return "\n".join((head, "", *rows))


def main(argv: list[str] | None = None) -> int:
    """Runs a command as `python -m` would; returns the exit code 2 where there is none of its name.

    argv: the words of the command line, with the program's name first; None: those of this process.
    """
    argv = sys.argv if argv is None else argv
    name = argv[1] if len(argv) > 1 else ""
    if name in ("-V", "--version"):
        print(f"swaptalk {__version__}")
        return 0
    if name in ("-h", "--help"):
        print(usage())
        return 0
    if name not in COMMANDS:
        print(f"swaptalk: no command {name!r}\n{usage()}", file=sys.stderr)
        return 2
    sys.argv = [argv[0], *argv[2:]]
    runpy.run_module(COMMANDS[name][0], run_name="__main__", alter_sys=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

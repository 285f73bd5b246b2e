"""What a stage needs before it can run: built by the config's own commands, or asked for."""

import subprocess
import sys
from pathlib import Path


def prepare(config, *more):
    """Builds what is missing of config.upstream (and `more`, of the same form), in order.

    Each need is {path, command}: the path whose presence tells, and the command that makes it.
    Commands run in this folder with this Python. Where config.build_upstream is not set, the first
    missing path ends the program with the command that makes it.
    """
    for need in (*config.upstream, *more):
        if Path(need["path"]).exists():
            continue
        if not config.build_upstream:
            raise SystemExit(f"{need['path']} is missing; make it first:\n  {need['command']}")
        print(f"[{config.stage}] {need['path']} is missing, so first:", flush=True)
        print(f"  $ {need['command']}", flush=True)
        done = subprocess.run([sys.executable, *need["command"].split()[1:]])
        if done.returncode:
            raise SystemExit(done.returncode)


def train_command(config):
    """The command that trains this config's stage."""
    suffix = "" if config.size == "paper" else f":{config.size}"
    return f"python -m swaptalk_jax.train --config=configs/{config.stage}.py{suffix}"

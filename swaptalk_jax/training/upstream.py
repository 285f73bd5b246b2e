"""What a stage needs before it can run: built by the config's own commands, or asked for."""

import subprocess
import sys
import time
from pathlib import Path

from swaptalk_jax import errors
from swaptalk_jax.training import processes


def prepare(config, *more):
    """Builds what is missing of config.upstream (and `more`, of the same form), in order.

    Each need is {path, command}: the path whose presence tells, and the command that makes it.
    Commands run in this folder with this Python. Where config.build_upstream is not set, the first
    missing path is a RunError with the command that makes it. Of several processes the first one
    builds, the others wait for the paths to appear.
    """
    for need in (*_chosen(config), *more):
        if Path(need["path"]).exists():
            continue
        if not config.build_upstream:
            raise errors.RunError(f"{need['path']} is missing; make it first:\n  {need['command']}")
        if config.distributed and processes.index() > 0:
            while not Path(need["path"]).exists():
                time.sleep(1.0)
            continue
        print(f"[{config.stage}] {need['path']} is missing, so first:", flush=True)
        print(f"  $ {need['command']}", flush=True)
        done = subprocess.run([sys.executable, *need["command"].split()[1:]])
        if done.returncode:
            code = done.returncode if done.returncode > 0 else 128 - done.returncode
            line = f"{need['path']} was not made: its command ended with exit code {code}"
            raise errors.RunError(line, code)


def _chosen(config):
    """config.upstream, with the networks that the command line chose in place of the config's."""
    folders = {slot: folder for slot, folder in config.frozen.items() if folder}
    for need in config.upstream:
        folder = folders.pop(need.get("slot"), None)
        yield _network(folder) if folder not in (None, str(Path(need["path"]).parent)) else need
    yield from map(_network, folders.values())


def _network(folder):
    """The need of a finished network that no stage of ours makes."""
    command = f"python -m swaptalk_jax.pretrained fetch {Path(folder).name}"
    if str(Path(folder).parent) != "runs/pretrained":
        command += f" --out={Path(folder).parent}"
    return {"path": f"{folder}/params.safetensors", "command": command}


def train_command(config):
    """The command that trains this config's stage."""
    suffix = "" if config.size == "paper" else f":{config.size}"
    return f"python -m swaptalk_jax.train --config=configs/{config.stage}.py{suffix}"

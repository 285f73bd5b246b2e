"""Seconds from the command to the first step."""

import subprocess
import sys
import tempfile
import time

from swaptalk_jax.errors import RunError


def startup(arguments):
    """{cache: seconds from the command to the first step}, without and with what XLA has kept."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in ("cold", "warm"):
            command = [sys.executable, "-m", "swaptalk_jax.train", *arguments]
            command += [f"--config.workdir={folder}/{name}", f"--config.compile_cache={folder}/xla"]
            began = time.perf_counter()
            run = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            for line in run.stdout:
                if " 1/" in line:
                    found[name] = time.perf_counter() - began
                    break
                print(f"  {line.rstrip()}")
            run.kill()
            run.wait()
            if name not in found:
                raise RunError(f"{' '.join(command)} ended before its first step")
    return found


def tell(arguments):
    """Prints what `startup` finds."""
    for name, seconds in startup(arguments).items():
        print(f"  {name} cache: {seconds:6.1f} s from the command to the first step")

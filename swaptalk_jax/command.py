"""What all commands do alike: join processes, keep compilations, turn errors into one line."""

import contextlib
import os
import sys
from pathlib import Path

import jax
from absl import logging

from swaptalk_jax.errors import PREEMPTED, STOPPED


def keep_compiled(folder):
    """Lets a restart find what XLA compiled; folder "": no such cache.

    JAX_COMPILATION_CACHE_DIR in the environment wins.
    """
    if folder and not jax.config.jax_compilation_cache_dir:
        jax.config.update("jax_compilation_cache_dir", str(Path(folder).absolute()))


def _leave(code, line):
    """Ends the process at once: other threads may be stuck in C++, where exiting would wait."""
    print(line, file=sys.stderr, flush=True)
    sys.stdout.flush()
    os._exit(code)


@contextlib.contextmanager
def failing_alone():
    """Around the work of one of several processes: what fails here ends the process at once.

    Without it a failed process waits for the others at JAX's shutdown barrier (300 s) while they
    wait for it in a collective, and the launcher learns nothing. Exits that all processes agree on
    (0, STOPPED, PREEMPTED) pass, and so does everything in a single process.
    """
    try:
        yield
    except BaseException as error:
        code = error.code if isinstance(error, SystemExit) else 1
        if not jax.distributed.is_initialized() or code in (None, 0, STOPPED, PREEMPTED):
            raise
        if isinstance(error, KeyboardInterrupt):
            code = STOPPED
        elif not isinstance(error, SystemExit):
            sys.excepthook(type(error), error, error.__traceback__)
        if not isinstance(code, int):
            print(code, file=sys.stderr)
            code = 1
        _leave(code, f"[process {jax.process_index()}] ends with exit code {code}")


def quiet():
    """Leaves out what JAX and Orbax tell of every backend and file."""
    logging.set_verbosity(logging.WARNING)

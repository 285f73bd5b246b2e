"""The head that all commands share: flags, processes, compilations, exit codes."""

import os
import sys
from pathlib import Path

import jax
from absl import app, flags, logging

from data_pipelines import command
from swaptalk_jax.errors import REFUSED, Stopped


def start(name, work, parser=None, stopped="stopped"):
    """The whole of a command: reads its flags, does work(flags) and ends with its exit code.

    name: begins the line of an error. work: takes the flags' values, returns the exit code or None.
    With a flag `config` the work begins when the processes have joined, if it is one of several
    (config.distributed), and where XLA's compilations are kept. parser: argv -> values, in place of
    absl's flags. stopped: the line of Ctrl-C.
    """
    app.run(
        lambda values: sys.exit(run(name, work, values, stopped)),
        flags_parser=parser or (lambda argv: _parsed(name, argv)),
    )


def run(name, work, values, stopped="stopped"):
    """Does work(values) as `start` says; returns the exit code.

    One of several processes that fails alone ends at once, and does not return: it would wait for
    the others at JAX's shutdown barrier (300 s), while they wait for it in a collective, and the
    launcher would learn nothing. Exits that all agree on (0 and Stopped) return.
    """
    quiet()
    config = getattr(values, "config", None)
    several = config is not None and config.distributed
    try:
        if config is not None:
            _prepare(config)
        return work(values) or 0
    except (Exception, KeyboardInterrupt) as error:
        code = command.ended(name, error, stopped)
        if several and not isinstance(error, Stopped):
            sys.stdout.flush()
            os._exit(code)  # other threads may be stuck in C++, where exiting would wait
        return code


def _prepare(config):
    if config.distributed:
        from swaptalk_jax.training import processes  # not for those who only infer

        processes.join(config)
    keep_compiled(config.compile_cache)


def _parsed(name, argv):
    """absl's flags; what they refuse, wherever in a config, ends the command in one line."""
    try:
        flags.FLAGS(argv)
    except Exception as error:  # a config is a program: it may raise anything
        missing = isinstance(error, KeyError) and error.args
        text = " ".join(str(error.args[0] if missing else error).split())
        text = text.removeprefix("Error loading config file ")
        reason = text if isinstance(error, flags.Error) else f"{type(error).__name__}: {text}"
        if isinstance(error, (KeyError, AttributeError)):
            reason = f"the config has no such field: {text}"
        print(f"[{name}] {reason}", file=sys.stderr, flush=True)
        sys.exit(REFUSED)
    return flags.FLAGS


def keep_compiled(folder):
    """Lets a restart find what XLA compiled; folder "": no such cache.

    JAX_COMPILATION_CACHE_DIR in the environment wins.
    """
    if folder and not jax.config.jax_compilation_cache_dir:
        jax.config.update("jax_compilation_cache_dir", str(Path(folder).absolute()))


def quiet():
    """Leaves out what JAX and Orbax tell of every backend and file."""
    logging.set_verbosity(logging.WARNING)

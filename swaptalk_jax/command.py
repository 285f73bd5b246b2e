"""The head that all commands share: flags, processes, compilations, exit codes."""

import ast
import contextlib
import os
import sys
from pathlib import Path

import jax
from absl import app, flags, logging

from data_pipelines import command
from swaptalk_jax import configs
from swaptalk_jax.errors import REFUSED, Stopped

# Flag of commands that run a bundle: name, default, meaning.
CACHE_FLAG = (
    "compile_cache",
    None,
    "Folder of what XLA compiled, for a fast start; default: `compiled` beside the bundle.",
)
# Seconds that a compilation takes at least to be kept. JAX's 1 leaves out most of a bundle's.
KEPT_FROM = 0.1


def start(name, work, parser=None, stopped="stopped"):
    """The whole of a command: reads its flags, does work(flags) and ends with its exit code.

    name: begins the line of an error. work: takes the flags' values, returns the exit code or None.
    With a flag `config` the work begins when the processes have joined, if it is one of several
    (config.distributed), and where XLA's compilations are kept; with a flag `bundle` they are kept
    where the flag `compile_cache` says, see CACHE_FLAG. parser: argv -> values, in place of
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
        elif hasattr(values, "compile_cache"):
            beside = str(Path(values.bundle).absolute().parent / "compiled")
            keep_compiled(beside if values.compile_cache is None else values.compile_cache)
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
        flags.FLAGS(configs.located(argv))
        if "config" in flags.FLAGS:
            hasattr(flags.FLAGS.config, "stage")  # a file that is not there shows only now
    except BrokenPipeError:  # of --help
        raise
    except Exception as error:  # a config is a program: it may raise anything
        print(f"[{name}] {_reason(error)}", file=sys.stderr, flush=True)
        sys.exit(REFUSED)
    return flags.FLAGS


def _reason(error):
    """What absl, ml_collections or a config has against a command line, as one line."""
    lines = str(error).strip().splitlines() or [""]
    if isinstance(error, KeyError) and error.args:
        return f"the config has no such field: {' '.join(str(error.args[0]).split())}"
    if isinstance(error, AttributeError):
        with contextlib.suppress(ValueError, SyntaxError):
            lines = ast.literal_eval(str(error)).splitlines()  # ml_collections quotes its text
        return f"the config has no such field: {' '.join(lines)}"
    if "Traceback" in str(error):  # of the config, and what it raised
        return f"{lines[0].partition(': Error')[0]}: {lines[-1].partition(': ')[2] or lines[-1]}"
    if isinstance(error, OSError) and "Attempted" in str(error):
        return f"no config to read at {lines[-1].rpartition(': ')[2]}"
    return " ".join(" ".join(lines).split())


def keep_compiled(folder):
    """Lets a restart find what XLA compiled; folder "": no such cache.

    JAX_COMPILATION_CACHE_DIR in the environment wins, and so does its shortest time. A folder that
    cannot be written to costs no more than the cache.
    """
    if folder and not jax.config.jax_compilation_cache_dir:
        jax.config.update("jax_compilation_cache_dir", str(Path(folder).absolute()))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", KEPT_FROM)


def quiet():
    """Leaves out what JAX and Orbax tell of every backend and file."""
    logging.set_verbosity(logging.WARNING)

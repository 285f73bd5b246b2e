"""Orbax checkpoints of a run: the only file that knows Orbax.

A run's folder holds `run.json` (the config it was begun with, see claim.py), `checkpoints/`
(training states, for resume) and, once it has ended, `params.safetensors` with the `config.json`
that made them (what later stages and export read).
"""

import collections
import contextlib
import gc
import logging
import sys
import time
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils
from orbax.checkpoint import v1 as ocp

from swaptalk_jax.errors import CheckpointError


class Checkpoints:
    """Training states of one run under `<workdir>/checkpoints`, the newest `keep` of them."""

    def __init__(self, workdir, keep=2):
        # Checkpointer decides by itself which steps to save; the loop decides here.
        self.checkpointer = ocp.training.Checkpointer(
            Path(workdir).absolute() / "checkpoints",
            preservation_policy=ocp.training.preservation_policies.LatestN(keep),
            save_decision_policy=ocp.training.save_decision_policies.FixedIntervalPolicy(1),
            cleanup_tmp_directories=True,
        )

    def latest(self):
        """Step of the newest finished checkpoint, or None."""
        newest = self.checkpointer.latest
        return None if newest is None else newest.step

    def save(self, step, state):
        """Starts saving in the background; a step that is already there is left alone."""
        if self.latest() != step:
            self.checkpointer.save_async(step, state)

    def restore(self, like):
        """(step, state) of the newest whole checkpoint; (0, None) where there is none.

        like: ShapeDtypeStructs with shardings, by which the state is laid out, on whatever devices
        it was saved. One that was cut short (a full disk, a copy) is told of, moved to
        `<workdir>/broken`, and the next older one taken. Raises CheckpointError where a checkpoint
        is whole but of another config.
        """
        for step in sorted((found.step for found in self.checkpointer.checkpoints), reverse=True):
            state = self._load(step, like)
            if state is not None:
                return step, state
            self._set_aside(step)
        return 0, None

    def _load(self, step, like):
        """The state of a step on all hosts, or None on all of them."""
        state, error = None, None
        with _hushed():
            try:
                known = _shapes(self.checkpointer.metadata(step).metadata)
                if known and known != _shapes(like):  # nothing is known where files are missing
                    raise CheckpointError(
                        f"{self.checkpointer.directory}: step {step} does not fit this config; "
                        "name a new folder with --config.workdir"
                    )
                state = self.checkpointer.load(step, like)
            except CheckpointError:
                raise
            except Exception as reason:  # Orbax, TensorStore and JSON have no common one
                error = reason
        if multihost_utils.process_allgather(np.array(error is None)).all():
            return state
        told = " ".join(str(error or "another host could not read it").split())[:200]
        print(f"{self.checkpointer.directory}: step {step} is not whole, skipped ({told})")
        return None

    def _set_aside(self, step):
        if jax.process_index() == 0:
            broken = self.checkpointer.directory.parent / "broken"
            broken.mkdir(exist_ok=True)
            (self.checkpointer.directory / str(step)).rename(broken / f"{step}-{time.time_ns()}")
        multihost_utils.sync_global_devices("a broken checkpoint is set aside")
        self.checkpointer.reload()

    def close(self):
        """Waits for saves under way."""
        self.checkpointer.wait()
        self.checkpointer.close()


def described(shapes, layout):
    """ShapeDtypeStructs of a state, laid out by a tree of shardings of its form."""
    return jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        shapes,
        layout,
    )


def _shapes(tree):
    """How many arrays of each shape and dtype."""
    arrays = [x for x in jax.tree.leaves(tree) if hasattr(x, "shape")]
    return collections.Counter((tuple(x.shape), str(x.dtype)) for x in arrays)


@contextlib.contextmanager
def _hushed():
    """Without the pages of tracebacks that Orbax leaves behind where a file is cut short.

    The error itself is raised all the same; these come from tasks that nobody waits for.
    """
    loggers = [logging.getLogger(name) for name in ("asyncio", "absl")]
    levels, hook = [logger.level for logger in loggers], sys.unraisablehook
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    sys.unraisablehook = lambda _: None
    try:
        yield
        gc.collect()
    finally:
        sys.unraisablehook = hook
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)

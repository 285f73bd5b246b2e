"""Ctrl-C and SIGTERM: a run saves and stops."""

import os
import signal

import jax
import numpy as np
from jax.experimental import multihost_utils

from swaptalk_jax.errors import PREEMPTED, STOPPED


class Interrupt:
    """Ctrl-C and SIGTERM ask for a stop after the running step; a second one stops at once.

    with Interrupt() as interrupt: the loop calls interrupt.asked(step) once a step, in every
    process. Among several processes all stop at the same step, as saving takes them all: JAX's
    preemption service, which catches SIGTERM itself, agrees on it.
    """

    def __enter__(self):
        self.code = None  # what this process was asked
        self.answer = (None, None)  # of the newest step
        self.several = jax.process_count() > 1
        handlers = {signal.SIGINT: self._ask}
        if not self.several:  # among several it is JAX's, and Python's would take its place
            handlers[signal.SIGTERM] = self._ask
        self.before = {number: signal.signal(number, ask) for number, ask in handlers.items()}
        return self

    def _ask(self, number, _):
        if self.code is None:
            self.code = STOPPED if number == signal.SIGINT else PREEMPTED
        # The next one ends the process even where Python does not come to run a handler.
        signal.signal(number, signal.SIG_DFL)
        if self.several:
            os.kill(os.getpid(), signal.SIGTERM)

    def asked(self, step):
        """STOPPED or PREEMPTED where the run shall save and stop at this step, else None."""
        if not self.several:
            return self.code
        if step != self.answer[0]:  # JAX's protocol counts calls: one a step
            self.answer = (step, self._agreed(step))
        return self.answer[1]

    def _agreed(self, step):
        if not multihost_utils.reached_preemption_sync_point(step):
            return None
        # Ctrl-C reached some of the processes, perhaps; all have to end with the same code.
        mine = np.int32(self.code == STOPPED)
        return STOPPED if np.any(multihost_utils.process_allgather(mine)) else PREEMPTED

    def __exit__(self, *_):
        for number, handler in self.before.items():
            signal.signal(number, handler)

"""Ends a run whose step hangs."""

import faulthandler
import os
import sys
import threading
import time

from swaptalk_jax.errors import HUNG


class Watchdog:
    """Ends a run whose step hangs: says where, dumps all stacks, and exits with HUNG.

    with Watchdog(seconds, what) as watchdog: the loop calls watchdog.pet(where) each step. Not
    petted for `seconds`, it takes the run for hung: a peer that died in a collective, a stuck
    driver, a file system that is gone. seconds: 0 disables; what: begins the line.
    """

    def __init__(self, seconds, what):
        self.seconds, self.what = seconds, what
        self.where, self.petted = "the start", time.monotonic()
        self.over = threading.Event()

    def __enter__(self):
        self.petted = time.monotonic()
        if self.seconds:
            threading.Thread(target=self._watch, daemon=True).start()
        return self

    def pet(self, where):
        """The run lives and begins `where`, such as "step 12"."""
        self.where, self.petted = where, time.monotonic()

    def _watch(self):
        tick = self.seconds / 20
        while not self.over.wait(tick):
            # What hangs with Python's lock held stops this thread too; then faulthandler's own
            # thread, which needs no lock, ends the process (with 1, all that it can).
            faulthandler.dump_traceback_later(
                self.seconds + 2 * tick, exit=True, file=sys.__stderr__
            )
            idle = time.monotonic() - self.petted
            if idle >= self.seconds and not self.over.is_set():
                print(
                    f"{self.what} hangs at {self.where}, for {idle:.0f} s; all stacks follow, and "
                    f"the run ends with exit code {HUNG}; the same command goes on from its newest "
                    "checkpoint",
                    file=sys.__stderr__,
                    flush=True,
                )
                faulthandler.dump_traceback(file=sys.__stderr__)
                os._exit(HUNG)
        faulthandler.cancel_dump_traceback_later()

    def __exit__(self, *_):
        self.over.set()

"""What a user meets while a run goes on: the progress line, Ctrl-C, and the word on a NaN."""

import json
import math
import signal
import time

import jax
from absl import logging


def quiet():
    """Leaves out what JAX and Orbax tell of every backend and file."""
    logging.set_verbosity(logging.WARNING)


class RunError(SystemExit):
    """A run that cannot go on; the message says why and what to do."""


class Interrupt:
    """Ctrl-C asks for a stop after the running step; a second one stops at once."""

    def __enter__(self):
        self.asked = False
        self.before = signal.signal(signal.SIGINT, self.ask)
        return self

    def ask(self, *_):
        """The handler."""
        self.asked = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def __exit__(self, *_):
        signal.signal(signal.SIGINT, self.before)


class History:
    """Metrics of the steps since the last log line, left on the device until then."""

    def __init__(self, stage, steps):
        self.stage, self.steps, self.clock = stage, steps, None
        self.rows = []  # of steps that are not logged yet
        self.told = []  # the newest that are

    def add(self, step, metrics):
        """Keeps a step's metrics (dict of scalars on the device); waits for the step before.

        One step is always queued, so the device never idles; a longer queue would delay Ctrl-C.
        """
        if self.rows:
            jax.block_until_ready(self.rows[-1][1])
        self.rows.append((step, metrics))

    def flush(self, log):
        """Logs the newest step's metrics; raises RunError at the first step with a NaN."""
        rows = [(s, {k: float(v) for k, v in m.items()}) for s, m in jax.device_get(self.rows)]
        self.rows = []
        for i, (step, metrics) in enumerate(rows):
            if not all(map(math.isfinite, metrics.values())):
                led = (self.told + rows[: i + 1])[-4:]
                lines = "\n".join(f"  step {s}: {json.dumps(m)}" for s, m in led)
                raise RunError(
                    f"[{self.stage}] the metrics of step {step} are not finite; nothing was saved "
                    f"since the last checkpoint. What led there:\n{lines}"
                )
        self.told = (self.told + rows)[-3:]
        if rows:
            log.scalars(*rows[-1])
            self.line(*rows[-1])

    def line(self, step, metrics):
        """Step, rate since the last line (the first one holds the compilation), time left."""
        now = time.time()
        rate = "compiled"
        if self.clock:
            before, at = self.clock
            seconds = (now - at) / max(step - before, 1)
            left = int(seconds * (self.steps - step))
            rate = f"{1 / seconds:.2f} steps/s  {left // 60}:{left % 60:02} left"
        self.clock = (step, now)
        print(f"[{self.stage}] {step}/{self.steps}  {rate}  {shown(metrics)}", flush=True)


def shown(metrics):
    """Metrics as one line."""
    return "  ".join(f"{k} {v:.4g}" for k, v in metrics.items())

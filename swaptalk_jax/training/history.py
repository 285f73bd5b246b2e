"""What a run says of itself while it goes on: its progress line, its speed, what looks wrong."""

import contextlib
import json
import math
import threading
import time

import jax

from swaptalk_jax.costs import chips
from swaptalk_jax.errors import RunError
from swaptalk_jax.training import diagnosis


class History:
    """Metrics of the steps since the last log line, left on the device until then.

    start: the step that the run goes on from.
    """

    def __init__(self, config, start):
        self.stage, self.steps, self.start = config.stage, config.train.steps, start
        self.diagnosis = diagnosis.Diagnosis(config)
        self.rows = []  # of steps that are not checked yet
        self.told = []  # the newest that are
        self.clock = None  # (step, time) of the last log line
        self.waited = 0.0  # seconds since then that the loop waited for a batch
        self.flops, self.peak = None, None  # of a device; None: not known
        self.counting = None  # thread that finds them

    def compiled(self, seconds, costs, parameters):
        """Tells what is about to run; what a step costs is told as soon as it is known.

        costs(): what a step costs each device (count.Costs). It reads the compiler's text, which
        takes seconds, so a thread does so while the first steps run. It may fail for a compiler
        that was never tried; the run goes on without these numbers.
        """
        kind = jax.devices()[0].device_kind
        where = f"goes on at step {self.start}" if self.start else f"{parameters:,} parameters"
        self.say(f"{where}, {jax.device_count()} x {kind}; step compiled in {seconds:.1f} s")
        # No daemon: one that the interpreter's end finds within the compiler's code is a crash.
        self.counting = threading.Thread(target=self._count, args=(kind, costs))
        self.counting.start()

    def _count(self, kind, costs):
        """Finds FLOPs and peak, and tells them."""
        chip = chips.find(kind)
        try:
            found = costs()
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:100]
            self.say(f"a step: FLOPs unknown ({reason})")
            return
        self.flops, self.peak = found.flops, chip and chip.peak_flops
        self.say(f"a step: {self.flops / 1e9:.3g} GFLOP and {_gib(found.memory)} GiB a device")

    def say(self, text):
        """One line of the first process."""
        if jax.process_index() == 0:
            print(f"[{self.stage}] {text}", flush=True)

    @contextlib.contextmanager
    def waiting(self):
        """Around the fetching of a batch."""
        began = time.perf_counter()
        yield
        self.waited += time.perf_counter() - began

    @contextlib.contextmanager
    def apart(self):
        """Around what is no part of the steps' speed."""
        began = time.time()
        yield
        if self.clock:
            self.clock = (self.clock[0], self.clock[1] + time.time() - began)

    def add(self, step, metrics):
        """Keeps a step's metrics (dict of scalars on the device); waits for the step before.

        One step is always queued, so the device never idles; a longer queue would delay Ctrl-C.
        """
        if self.rows:
            jax.block_until_ready(self.rows[-1][1])
        self.rows.append((step, metrics))

    def check(self, speed=None):
        """Looks at the steps since the last call; raises RunError at the first NaN.

        speed: what is known of all of them, see `speed`.
        """
        rows = [(s, {k: float(v) for k, v in m.items()}) for s, m in jax.device_get(self.rows)]
        self.rows = []
        for i, (step, metrics) in enumerate(rows):
            if not all(map(math.isfinite, metrics.values())):
                led = (self.told + rows[: i + 1])[-4:]
                lines = "\n".join(f"  step {s}: {json.dumps(m)}" for s, m in led)
                raise RunError(
                    f"the metrics of step {step} are not finite; nothing was saved since the last "
                    f"checkpoint. {self.diagnosis.not_finite(step, led)} What led there:\n{lines}"
                )
            self.warn(self.diagnosis.step(step, metrics | (speed or {})))
        self.told = (self.told + rows)[-3:]

    def flush(self, log):
        """Checks, and logs the newest step's metrics and the speed since the last call.

        Only at steps that do not depend on where a run was interrupted, so that its metrics.jsonl
        is that of an uninterrupted one.
        """
        if not self.rows:
            return
        speed = self.speed(self.rows[-1][0])
        self.check(speed)
        step, metrics = self.told[-1]
        log.scalars(step, metrics)
        log.speed(step, speed)
        left = "compiled"
        if speed:
            seconds = int((self.steps - step) / speed["steps_per_second"])
            left = (
                f"{speed['steps_per_second']:.2f} steps/s  {seconds // 60}:{seconds % 60:02} left"
            )
        self.say(f"{step}/{self.steps}  {left}  {shown(metrics)}")

    def speed(self, step):
        """{name: value} since the last call; nothing at the first, which holds what starts up."""
        now, waited = time.time(), self.waited
        before, self.clock, self.waited = self.clock, (step, now), 0.0
        if not before or step == before[0]:
            return {}
        rate = (step - before[0]) / (now - before[1])
        found = {"steps_per_second": rate, "input_wait": waited / (now - before[1])}
        if self.flops is not None:
            found["teraflops_per_device"] = rate * self.flops / 1e12
        if self.peak:
            found["share_of_peak"] = rate * self.flops / self.peak
        return found

    def evaluated(self, step, values):
        """Tells the numbers of an evaluation, and what they warn of."""
        self.say(f"{step}/{self.steps}  {shown(values)}")
        self.warn(self.diagnosis.evaluation(step, values))

    def warn(self, findings):
        """One line each."""
        for finding in findings:
            self.say(f"look: {finding}")


def _gib(memory):
    return "?" if memory is None else f"{memory.total / 2**30:.2g}"


def shown(metrics):
    """Metrics as one line."""
    return "  ".join(f"{k} {v:.4g}" for k, v in metrics.items())

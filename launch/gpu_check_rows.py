"""The rows of gpu_check.py, and the processes that measure them.

Standard library only.
"""

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@dataclasses.dataclass(frozen=True)
class Row:
    """One measurement. seconds: its time, of MINUTES in all."""

    what: str
    stage: str
    seconds: float

    @property
    def name(self):
        """As --only and the results have it."""
        return self.what if self.what in ("peak", "infer") else f"{self.what}-{self.stage}"


CARD = [
    Row("peak", "sync", 45),
    *(Row("step", stage, 130) for stage in ("sync", "swap", "vqgan")),
    Row("infer", "sync", 90),
    *(Row("step", stage, 90) for stage in ("expert", "identity")),
    *(Row("largest", stage, 130) for stage in ("vqgan", "sync", "swap", "expert", "identity")),
]
CPU = [Row("plan", stage, 300) for stage in ("sync", "swap", "vqgan", "expert", "identity")]


def command(row, config, seconds, options):
    """The command line of a row."""
    line = [sys.executable, "-W", "ignore", "-m", "swaptalk_jax.benchmark"]
    line += [f"--config={config}", f"--config.compile_cache={options.out}/compiled"]
    line += [f"--card={row.what}", f"--card_seconds={seconds:.0f}"]
    return line + [f"--card_memory={options.memory}"]


class Measurement:
    """A row's process. until: when it is ended, by time.monotonic."""

    def __init__(self, row, seconds, last, options):
        self.row, self.began, self.last = row, time.monotonic(), last
        self.until = min(self.began + seconds, last)
        size = "" if options.size == "paper" else f":{options.size}"
        config = f"configs/{row.stage}.py{size}"
        self.found = options.out / "rows" / f"{row.name}.jsonl"
        self.log = self.found.with_suffix(".log")
        self.found.parent.mkdir(parents=True, exist_ok=True)
        self.found.unlink(missing_ok=True)
        line = [*command(row, config, self.until - self.began, options), f"--out={self.found}"]
        print(f"[card] {row.name}: at most {self.until - self.began:.0f} s", flush=True)
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                line,
                cwd=ROOT,
                env=environment(row),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for this command alone
            )
        if row.what == "plan":
            os.setpriority(os.PRIO_PROCESS, self.process.pid, 10)  # the card's rows come first

    def poll(self):
        """Its row when it has ended, or its time is over; else None."""
        over = time.monotonic() >= self.until
        if self.process.poll() is None and not over:
            return None
        code = self.process.poll()
        self.end()
        state, why = "done", ""
        if code is None:
            state = "late" if self.until >= self.last else "cut"
            why = f"took longer than {self.until - self.began:.0f} s"
        elif code:
            state, why = "failed", reason(code, self.log.read_text(errors="replace"))
        took = round(time.monotonic() - self.began, 1)
        return self.values() | {"state": state, "why": why, "took": took}

    def values(self):
        """What it has found so far."""
        found = {}
        if self.found.exists():
            for line in self.found.read_text().splitlines():
                try:
                    found |= json.loads(line)
                except ValueError:  # cut off
                    break
        return found

    def end(self):
        """Ends it, with all that it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def reason(code, log):
    """One line that tells why a row failed, of its exit code and what it said."""
    if "RESOURCE_EXHAUSTED" in log or "Out of memory" in log:
        return "the device's memory is too small"
    if code == -signal.SIGKILL:
        return "killed by SIGKILL: it may be that the machine's memory is too small"
    said = [line.strip() for line in log.splitlines() if line.strip()]
    return (said[-1] if said else f"exit code {code}")[:200]


def environment(row):
    """The environment of a row's process."""
    found = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    if row.what == "plan":
        return found | {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    # All memory at once, but for what libraries take beside it: no fragments at the largest batch.
    return {"XLA_PYTHON_CLIENT_MEM_FRACTION": ".92"} | found

"""One start of a training command that launch/soak.py kills, and what it tells until then."""

import contextlib
import dataclasses
import os
import re
import signal
import subprocess
import threading
import time
from pathlib import Path

import local

ROOT = Path(__file__).resolve().parent.parent
STEP = re.compile(r"\[\w+\] (\d+)/\d+ ")
BEGUN = re.compile(r"\[\w+\] (?:goes on at step (\d+)|[\d,]+ parameters)")
PROCESS = re.compile(r"^local: process \d+ is (\d+)")


@dataclasses.dataclass
class Kill:
    """One kill, and what it cost."""

    kind: str  # SIGKILL or SIGTERM
    moment: str  # start, step or save: when it was meant to come
    at: int | None  # newest step that was told; None before the first
    amid_save: bool  # an unfinished checkpoint was left
    code: int  # with which the run ended
    resumed: int | None = None  # step that the next life went on from

    @property
    def lost(self):
        """Steps to be done again."""
        return max((self.at or 0) - (self.resumed or 0), 0)


class Life:
    """One start of the training command, and what it tells."""

    def __init__(self, command):
        self.begun, self.step = None, None  # what it went on from; newest step that it told
        self.pids, self.tail = [], []
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
            preexec_fn=local.die_with_parent,
        )
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.process.stdout:
            if match := PROCESS.match(line):
                self.pids.append(int(match[1]))
            if match := BEGUN.search(line):
                self.begun = int(match[1] or 0)
            if match := STEP.search(line):
                self.step = int(match[1])
            self.tail = (self.tail + [line])[-30:]

    def wait_for(self, happened):
        """Waits until it has happened; False where the process ended before."""
        while not happened():
            if self.process.poll() is not None:
                return False
            time.sleep(0.001)
        return True

    def kill(self, number, rng):
        """Sends the signal; of several processes SIGKILL takes one, the launcher ends the rest."""
        if number == signal.SIGKILL and self.pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(rng.choice(self.pids), number)
        else:
            self.process.send_signal(number)
        return self.end()

    def end(self):
        """Exit code, once all that it told is read."""
        code = self.process.wait()
        self.reader.join(timeout=10)
        return code

    def clear(self):
        """Leaves no process behind."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.end()

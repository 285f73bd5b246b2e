"""A peer's process, as the comparison sees it: ready, then a turn at a time."""

import contextlib
import json
import subprocess
import tempfile
from pathlib import Path

from swaptalk_jax.errors import RunError

SCRIPT = Path(__file__).parent / "theirs" / "main.py"
LEAVE_SECONDS = 20  # for a process that is done to end by itself


class Peer:
    """One task of a peer in a Python of its own; use it in a `with`.

    facts: what the process told of itself when it was ready. Raises RunError, in one line, where it
    cannot begin, says that it cannot go on, or ends without an answer.
    """

    def __init__(self, python, name, checkout, task, fields):
        """python: its program. name: the peer's, for errors. fields: shapes; None: only imports."""
        self._name, self._errors = name, tempfile.TemporaryFile("w+")
        command = [str(python), str(SCRIPT), task, str(checkout), json.dumps(fields)]
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                text=True,
            )
        except OSError as error:
            self._errors.close()
            raise RunError(
                f"--peer_python={python} does not start ({error.strerror}); give the python of an"
                " environment that has PyTorch"
            ) from error
        try:
            self.facts = self._answer("ready")
        except BaseException:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def turn(self):
        """Does its work once; returns the seconds that it took."""
        with contextlib.suppress(BrokenPipeError):  # the answer tells why
            self._process.stdin.write("turn\n")
            self._process.stdin.flush()
        return float(self._answer("seconds"))

    def close(self):
        """Ends the process, by force where it does not listen."""
        self._leave()
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()
        self._errors.close()

    def _answer(self, key):
        line = self._process.stdout.readline()
        try:
            told = json.loads(line)
            if key in told:
                return told[key]
            trouble = told["error"]
        except (ValueError, KeyError, TypeError):
            trouble = f"no answer {key!r}; it ended with {self._end(line)}"
        raise RunError(f"the peer {self._name}: {trouble}")

    def _end(self, line):
        """The exit code, and the last that it said."""
        self._leave()
        self._errors.seek(0)
        said = [line, *self._errors.read().splitlines()]
        last = next((x.strip() for x in reversed(said) if x.strip()), "and said nothing")
        return f"exit code {self._process.poll()}: {last}"

    def _leave(self):
        """Asks the process to end, and gives it time for that."""
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(LEAVE_SECONDS)

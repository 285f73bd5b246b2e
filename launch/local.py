"""Several processes of one command on this machine, started again when they fail.

    python launch/local.py --processes=4 -- \\
        python -m swaptalk_jax.train --config=configs/sync.py:tiny
    python launch/local.py --processes=8 --gpus -- \\
        python -m swaptalk_jax.train --config=configs/vqgan.py

Each process gets --config.distributed=True and what it needs to find the others in its environment;
each line of output begins with the process's number. --processes=1 starts the command as it is, and
only restarts it.

Exit codes of the command: 0 is done. 75 (preempted, saved), 76 (hung), a signal and a traceback:
all are started again, but no more than --restarts times in a row without a newer checkpoint. 78
(refused) and 130 (Ctrl-C) are final. Ctrl-C and SIGTERM are passed on, and the saves waited for; a
second one ends everything at once. Nothing that was started outlives this command.

Standard library only.
"""

import argparse
import contextlib
import ctypes
import os
import random
import re
import selectors
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

STOPPED, PREEMPTED, HUNG, REFUSED = 130, 75, 76, 78  # swaptalk_jax.errors has the same
AGREED = (0, STOPPED, PREEMPTED)  # all processes come to these together
GRACE = 5.0  # seconds for the others to tell their reasons after one has failed


def main():
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--gpus", action="store_true", help="one GPU a process")
    parser.add_argument("--devices_per_process", type=int, help="CPU devices of each")
    parser.add_argument("--restarts", type=int, default=5, help="see above; 0: never")
    parser.add_argument("--wait", type=float, default=2.0, help="seconds before a restart")
    parser.add_argument("--workdir", help="the run's folder, if the command doesn't tell")
    parser.add_argument("command", nargs="+", help="after --")
    options = parser.parse_args()
    if options.processes < 1:
        parser.error(f"--processes={options.processes}: at least 1")
    if options.devices_per_process is not None and options.devices_per_process < 1:
        parser.error(f"--devices_per_process={options.devices_per_process}: at least 1")
    if options.gpus and options.devices_per_process:
        parser.error("--gpus gives each process one GPU; --devices_per_process is for CPUs")
    sys.exit(Launcher(options).run())


class Launcher:
    """Runs the command until it is done, refused, told to stop, or without hope."""

    def __init__(self, options):
        self.options = options
        self.workdir = Path(options.workdir) if options.workdir else workdir(options.command)
        self.told = []  # signals that came

    def run(self):
        """Exit code of the whole."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, _: self.told.append(number))
        newest, failures = self.checkpoint(), 0
        while True:
            code = self.once()
            if code == 0 or code in (STOPPED, REFUSED) or self.told:
                return code if code >= 0 else 128 - code
            before, newest = newest, self.checkpoint()
            failures = 0 if newest != before else failures + 1
            what = describe(code)
            if not self.options.restarts or failures > self.options.restarts:
                say(f"{what}; {failures} times in a row without a newer checkpoint: giving up")
                return code if code >= 0 else 128 - code
            where = "the start" if newest is None else f"step {newest}"
            say(f"{what}; starts again from {where}")
            end = time.monotonic() + self.options.wait * 2 ** min(failures, 5)
            while time.monotonic() < end and not self.told:
                time.sleep(0.05)
            if self.told:
                return STOPPED if self.told[0] == signal.SIGINT else PREEMPTED

    def checkpoint(self):
        """The newest step that the run has saved; None where there is none or no known folder."""
        if self.workdir is None:
            return None
        folder = self.workdir / "checkpoints"
        names = [p.name for p in folder.iterdir()] if folder.is_dir() else []
        return max((int(name) for name in names if name.isdigit()), default=None)

    def once(self):
        """Starts all processes and waits for their end; the code that decides (< 0: a signal)."""
        group = []
        try:
            environment = self.environment()
            for index in range(self.options.processes):
                group.append(self.start(index, environment))
                say(f"process {index} is {group[-1].pid}")
            return self.watch(group)
        except OSError as error:
            say(f"{self.options.command[0]}: {error.strerror}")
            return REFUSED
        finally:
            for process in group:
                end(process)

    def environment(self):
        """What all processes share."""
        several = self.options.processes > 1
        found = dict(os.environ)
        # The output is a pipe here; lines shall come as they are printed.
        found["PYTHONUNBUFFERED"] = "1"
        if several:
            found["JAX_COORDINATOR_ADDRESS"] = f"localhost:{free_port()}"
            found["SWAPTALK_PROCESSES"] = str(self.options.processes)
        if self.options.devices_per_process:
            found["JAX_NUM_CPU_DEVICES"] = str(self.options.devices_per_process)
        return found

    def start(self, index, environment):
        """Popen of a process, in a session of its own: a terminal's Ctrl-C reaches us alone."""
        command, mine = list(self.options.command), dict(environment)
        if self.options.processes > 1:
            command.append("--config.distributed=True")
            mine["SWAPTALK_PROCESS"] = str(index)
        if self.options.gpus:
            mine["CUDA_VISIBLE_DEVICES"] = gpu(index, self.options.processes)
        return subprocess.Popen(
            command,
            env=mine,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )

    def watch(self, group):
        """Passes lines on, and signals, until all have ended."""
        passed, first, reading = 0, None, selectors.DefaultSelector()
        rests = [b""] * len(group)
        for index, process in enumerate(group):
            os.set_blocking(process.stdout.fileno(), False)
            reading.register(process.stdout, selectors.EVENT_READ, index)
        while any(process.poll() is None for process in group):
            for key, _ in reading.select(timeout=0.2):
                data = key.fileobj.read()
                if data:
                    rests[key.data] = self.lines(key.data, rests[key.data] + data)
                elif data == b"":
                    reading.unregister(key.fileobj)
            while passed < len(self.told):
                number, passed = self.told[passed], passed + 1
                for process in group:
                    # A second one that only asks could wait for ever.
                    ask(process, number if passed == 1 else signal.SIGKILL)
            failed = [p for p in group if p.poll() is not None and p.returncode not in AGREED]
            if failed and first is None:
                first, since = failed[0].returncode, time.monotonic()
            if failed and time.monotonic() - since >= GRACE:
                for process in group:
                    ask(process, signal.SIGKILL)
        for index, process in enumerate(group):
            # What is still in the pipe; a grandchild may hold it open, so never wait for its end.
            rest = process.stdout.read() or b""
            self.lines(index, rests[index] + rest + b"\n" if rests[index] + rest else b"")
        codes = [process.returncode for process in group]
        return verdict(codes, first or next((c for c in codes if c not in AGREED), None))

    def lines(self, index, data):
        """Writes whole lines under the process's number; returns what is left."""
        *whole, rest = data.split(b"\n")
        prefix = f"{index}: ".encode() if self.options.processes > 1 else b""
        for line in whole:
            sys.stdout.buffer.write(prefix + line + b"\n")
        sys.stdout.buffer.flush()
        return rest


def verdict(codes, first):
    """The code that decides: what is final, else the first that failed, else what all agreed on.

    first: the code of the process that failed first, if any did: the others only follow (peers of
    a dead process abort or raise, and are killed).
    """
    for code in (REFUSED, STOPPED):
        if code in codes:
            return code
    return first or max(codes)


def describe(code):
    """A code in words."""
    if code < 0:
        with contextlib.suppress(ValueError):
            return f"killed by {signal.Signals(-code).name}"
    named = {PREEMPTED: "preempted and saved", HUNG: "hung"}
    return named.get(code, f"failed with exit code {code}")


def ask(process, number):
    """Sends a signal to a process; SIGKILL to all that it started too."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            if number == signal.SIGKILL:
                os.killpg(process.pid, number)
            else:
                process.send_signal(number)


def end(process):
    """Kills what is left of a process and of what it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()


def workdir(command):
    """Folder of the run that a command of swaptalk_jax.train goes on with; None: not known."""
    values = {}
    for word, following in zip(command, [*command[1:], ""], strict=True):
        name, equals, value = word.lstrip("-").partition("=")
        values[name] = value if equals else following
    if "config.workdir" in values:
        return Path(values["config.workdir"])
    config = re.search(r"(\w+)(?:\.py)?(?::(\w+))?$", values.get("config", ""))
    if not config:
        return None
    return Path(values.get("config.root", f"runs/{config[2] or 'paper'}"), config[1])


def gpu(index, count):
    """CUDA_VISIBLE_DEVICES of a process: its share of ours, one."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",") if visible else [str(i) for i in range(count)]
    if len(names) < count:
        say(f"--gpus: {count} processes, but CUDA_VISIBLE_DEVICES={visible} has {len(names)}")
        sys.exit(REFUSED)
    return names[index]


def free_port():
    """A free port for JAX's coordinator.

    Below Linux's ephemeral ports (from 32768), where any connection could take it meanwhile.
    """
    for _ in range(100):
        port = random.randrange(20000, 32000)
        try:
            with socket.socket() as one:
                one.bind(("", port))
        except OSError:
            continue
        return port
    say("no free port between 20000 and 32000")
    sys.exit(1)


def say(text):
    """A line of the launcher's own."""
    print(f"local: {text}", flush=True)


_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def die_with_parent():
    """In the child: Linux kills it when the launcher is gone, however that came about."""
    if _LIBC is not None:
        _LIBC.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


if __name__ == "__main__":
    main()

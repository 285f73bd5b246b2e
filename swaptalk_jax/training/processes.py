"""A run's life among processes: how they find one another, how they stop, and how a hang ends.

Exit codes tell the launchers (launch/) what to do next. Restarting helps after PREEMPTED (the state
was saved), HUNG, a signal and a traceback; it does not after REFUSED (a config, data or NaN: the
same thing would happen again) and is not wanted after STOPPED (Ctrl-C).
"""

import contextlib
import itertools
import json
import os
import socket
import socketserver
import threading
import time

import jax
from jax._src import distributed  # what initialize found out has no public name

from swaptalk_jax.command import _leave
from swaptalk_jax.errors import HUNG, REFUSED, STOPPED

# What launch/local.py and launch/k8s.yaml set beside JAX's own JAX_COORDINATOR_ADDRESS; JAX finds
# the rest itself on TPU pods, under SLURM and Open MPI.
COUNT, INDEX = "SWAPTALK_PROCESSES", "SWAPTALK_PROCESS"
ADDRESS = "JAX_COORDINATOR_ADDRESS"


def join(config, every=10.0):
    """Makes this process one of several; tells every `every` seconds for whom it waits.

    Where it is one of how many comes from the environment: COUNT, INDEX and ADDRESS, else what
    jax.distributed.initialize detects. Ends the process with HUNG when the others have not come
    within config.join_seconds (300 if there is no such field) or are lost again, with REFUSED where
    the environment names no cluster. JAX itself waits without a word, deaf to Ctrl-C, and aborts.
    """
    seconds = config.get("join_seconds", 300)
    options = _from_environment()
    failed = []

    def initialize():
        try:
            # JAX's own time-out aborts the process from C++; ours, below, comes first.
            jax.distributed.initialize(initialization_timeout=int(seconds) + 60, **options)
        except Exception as error:
            failed.append(error)

    # In a thread, as it blocks in C++: here the main thread still hears signals and can speak.
    thread = threading.Thread(target=initialize, daemon=True)
    began = told = asked = time.monotonic()
    thread.start()
    roll, line = _RollCall(), ""
    try:
        while thread.is_alive():
            thread.join(0.1)
            now = time.monotonic()
            if now - asked >= every / 4:  # oftener than it speaks, so that what it says is true
                line, asked = roll.missing(), now
            if thread.is_alive() and now - began >= seconds:
                _leave(HUNG, f"[join] {line or roll.missing()}: not within {seconds:g} s")
            if thread.is_alive() and now - told >= every:
                print(f"[join] {line}, {now - began:.0f} s", flush=True)
                told = now
    except KeyboardInterrupt:
        _leave(STOPPED, "[join] stopped while waiting for the other processes")
    finally:
        roll.close()
    if failed:
        reason = " ".join(str(failed[0]).split())[:300]
        if isinstance(failed[0], (ValueError, TypeError)):
            _leave(REFUSED, f"[join] cannot be one of several processes: {reason}{_ADVICE}")
        _leave(HUNG, f"[join] the processes did not come together: {reason}")


_ADVICE = (
    "; start it with launch/local.py, slurm.sh, tpu_pod.sh or k8s.yaml, or set "
    f"{ADDRESS}, {COUNT} and {INDEX}, or leave out --config.distributed"
)


def _from_environment():
    """Arguments of jax.distributed.initialize that our launchers give; {}: JAX shall detect."""
    given = {name: os.environ.get(name) for name in (ADDRESS, COUNT, INDEX)}
    if given[COUNT] is None and given[INDEX] is None:
        return {}
    try:
        count, index = int(given[COUNT]), int(given[INDEX])
        host, _, port = given[ADDRESS].rpartition(":")
        if not (0 <= index < count and host and 0 < int(port) < 65535):
            raise ValueError
    except (TypeError, ValueError, AttributeError):
        shown = ", ".join(f"{name}={value}" for name, value in given.items())
        _leave(REFUSED, f"[join] {shown}: wanted host:port, a count, and an index below it")
    return {
        "coordinator_address": given[ADDRESS],
        "num_processes": count,
        "process_id": index,
        "cluster_detection_method": "deactivate",
    }


def index():
    """This process's index after join, 0 without; unlike jax.process_index starts no device."""
    return distributed.global_state.process_id


def meet(seconds=3600.0):
    """Waits for the other processes, where there are any, to come to the same call.

    Before a first collective: there gloo gives its peers 30 s, and compiling may take one of them
    longer than another. Raises jax.errors.JaxRuntimeError after `seconds`.
    """
    client = distributed.global_state.client
    if client is not None:
        client.wait_at_barrier(f"meeting {next(_MEETINGS)}", int(1000 * seconds))


_MEETINGS = itertools.count()  # a barrier's name is good for one time


class _RollCall:
    """Who is here already: process 0 answers at the port above the coordinator's while all wait.

    For the sake of the message only; JAX's service cannot be asked before all are connected (the
    client aborts). Where the port is taken or closed, nobody is counted.
    """

    def __init__(self):
        self.server = None
        self.seen = {}  # process -> when it asked last

    def missing(self):
        """A line that says who this process is and for whom it waits."""
        state = distributed.global_state
        if state.coordinator_address is None or self._where(state) is None:
            return "looking for the cluster"
        index, count = state.process_id, state.num_processes
        line = f"process {index} of {count} waits for"
        here = self._here(state)
        if here is None:
            return f"{line} process 0, which does not answer at {state.coordinator_address}"
        absent = sorted(set(range(count)) - here - {index})
        if not here or not absent:
            return f"{line} others"
        names = ", ".join(map(str, absent[:8])) + (" ..." if len(absent) > 8 else "")
        return f"{line} {len(absent)} more ({names})"

    def close(self):
        """Answers no more."""
        if self.server:
            self.server.shutdown()
            self.server.server_close()

    def _here(self, state):
        """Indices of processes that asked lately; empty: not known; None: nobody answers."""
        address = self._where(state)
        if state.process_id == 0:
            self._serve(address[1])
            return self._lately(0) if self.server else set()
        try:
            with socket.create_connection(address, timeout=2) as call:
                call.sendall(f"{state.process_id}\n".encode())
                return {int(i) for i in json.loads(call.makefile().readline(2**20))}
        except (OSError, ValueError, TypeError):
            pass
        try:
            socket.create_connection((address[0], address[1] - 1), timeout=2).close()
            return set()
        except OSError:
            return None

    def _serve(self, port):
        if self.server is None and port:
            call = self

            class Server(socketserver.ThreadingTCPServer):
                allow_reuse_address = daemon_threads = True

            class Answer(socketserver.StreamRequestHandler):
                timeout = 2

                def handle(self):
                    with contextlib.suppress(OSError, ValueError):
                        here = call._lately(int(self.rfile.readline(32)))
                        self.wfile.write(json.dumps(sorted(here)).encode() + b"\n")

            try:
                self.server = Server(("", port), Answer)
            except OSError:
                return
            threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def _lately(self, index):
        """Notes that a process has asked; those that have not for a minute may be gone."""
        now = time.monotonic()
        self.seen[index] = now
        return {i for i, when in list(self.seen.items()) if now - when < 60}

    @staticmethod
    def _where(state):
        host, _, port = (state.coordinator_address or "").rpartition(":")
        return (host.strip("[]"), int(port) + 1) if host and port.isdigit() else None

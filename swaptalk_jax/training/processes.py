"""How the processes of a run find one another."""

import os
import threading

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from swaptalk_jax.errors import JoinError, RunError

# What launch/local.py and launch/k8s.yaml set beside JAX's own JAX_COORDINATOR_ADDRESS; JAX finds
# the rest itself on TPU pods, under SLURM and Open MPI.
COUNT, INDEX = "SWAPTALK_PROCESSES", "SWAPTALK_PROCESS"
ADDRESS = "JAX_COORDINATOR_ADDRESS"
ADVICE = (
    "; start it with launch/local.py, slurm.sh, tpu_pod.sh or k8s.yaml, or set "
    f"{ADDRESS}, {COUNT} and {INDEX}, or leave out --config.distributed"
)


def join(config):
    """Makes this process one of several; returns when all have come.

    Where it is one of how many comes from the environment: COUNT, INDEX and ADDRESS, else what
    jax.distributed.initialize detects. Raises JoinError when the others have not come within
    config.join_seconds (300 if there is no such field) or are lost again, RunError where the
    environment names no cluster. After a JoinError a thread may still wait in C++, so that only
    os._exit ends the process.
    """
    seconds = config.get("join_seconds", 300)
    options, failed = _from_environment(), []
    who = "[join] this process waits for the others"
    if options:
        who = f"[join] process {options['process_id']} of {options['num_processes']} waits"
        who += f" for the others at {options['coordinator_address']}"
    print(f"{who}, {seconds:g} s at most", flush=True)

    def initialize():
        try:
            # JAX's own time-out aborts the process from C++; ours, below, comes first.
            jax.distributed.initialize(initialization_timeout=int(seconds) + 60, **options)
        except Exception as error:
            failed.append(error)

    # In a thread, as it blocks in C++: here the main thread still hears Ctrl-C.
    thread = threading.Thread(target=initialize, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise JoinError(
            f"the other processes did not come within {seconds:g} s; see that all are started, "
            "with the same address, and that its port is open"
        )
    if failed:
        reason = " ".join(str(failed[0]).split())[:300]
        if isinstance(failed[0], (ValueError, TypeError)):
            raise RunError(f"cannot be one of several processes: {reason}{ADVICE}")
        raise JoinError(f"the processes did not come together: {reason}")


def _from_environment():
    """Arguments of jax.distributed.initialize that our launchers give; {}: JAX shall detect."""
    given = {name: os.environ.get(name) for name in (ADDRESS, COUNT, INDEX)}
    if given[COUNT] is None and given[INDEX] is None:
        return {}
    try:
        count, index = int(given[COUNT]), int(given[INDEX])
        host, _, port = given[ADDRESS].rpartition(":")
        if not (0 <= index < count and host and 0 < int(port) < 65536):
            raise ValueError
    except (TypeError, ValueError, AttributeError):
        shown = ", ".join(f"{name}={value}" for name, value in given.items())
        raise RunError(f"{shown}: wanted host:port, a count, and an index below it") from None
    return {
        "coordinator_address": given[ADDRESS],
        "num_processes": count,
        "process_id": index,
        "cluster_detection_method": "deactivate",
    }


def index():
    """This process's index among all, after join.

    Where our launchers gave it, no device is started: commands that this one runs may want them.
    """
    return int(os.environ[INDEX]) if INDEX in os.environ else jax.process_index()


def meet():
    """Waits until every process has come to the same call: a sum over all devices.

    The first call also makes the devices' connections, so it belongs where all come at one time,
    before any long work. Gloo, by which CPUs speak, gives peers 30 s to come to the first
    collective, and half an hour to any later one; compiling a step may take one process more than
    30 s longer than another.
    """
    if jax.process_count() == 1:
        return
    mesh = Mesh(np.array(jax.devices()), ("all",))
    one = np.ones(jax.local_device_count(), np.float32)
    cut, whole = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (("all",), ()))
    ones = jax.make_array_from_process_local_data(cut, one)
    jax.block_until_ready(jax.jit(jnp.sum, out_shardings=whole)(ones))

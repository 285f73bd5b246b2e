"""How processes find one another, stop together, and end when they hang: with real processes."""

import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import time

import pytest
from places import ROOT

from swaptalk_jax import errors
from swaptalk_jax.training.interrupt import Interrupt

LAUNCHER = (sys.executable, str(ROOT / "launch" / "local.py"))

# A loop like the training's: each step is a sum over all processes.
LOOP = """
import os, signal, time
from types import SimpleNamespace
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from ml_collections import ConfigDict
from swaptalk_jax import command, errors
from swaptalk_jax.training.interrupt import Interrupt

def loop(_):
    mesh = jax.make_mesh((jax.process_count(),), ("data",))
    ones = jax.make_array_from_process_local_data(
        NamedSharding(mesh, PartitionSpec("data")), np.ones(1, np.float32))
    total = jax.jit(jnp.sum, out_shardings=NamedSharding(mesh, PartitionSpec()))
    me = jax.process_index()
    with Interrupt() as interrupt:
        for step in range(10_000):
            if code := interrupt.asked(step):
                raise errors.Stopped(f"stopped at {step}", code)
            assert float(total(ones)) == jax.process_count()
            time.sleep(0.01 * (me + 1))  # hosts are never quite as fast as one another
            if me == 1 and step == 20:
                NOW

config = ConfigDict({"distributed": True, "join_seconds": 60, "compile_cache": ""})
raise SystemExit(command.run("loop", loop, SimpleNamespace(config=config)))
"""


@pytest.fixture
def script(tmp_path):
    """Returns text -> command that runs it as a program."""

    def write(text):
        path = tmp_path / f"program_{len(list(tmp_path.iterdir()))}.py"
        path.write_text(textwrap.dedent(text))
        return [sys.executable, str(path)]

    return write


def environment(**more):
    found = {k: v for k, v in os.environ.items() if not k.startswith(("SWAPTALK_", "JAX_COORD"))}
    return found | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT), **more}


def start(command, **more):
    return subprocess.Popen(
        command,
        env=environment(**more),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def free_port():
    with socket.socket() as one:
        one.bind(("", 0))
        return one.getsockname()[1]


def test_watchdog_ends_what_hangs_and_says_where(script):
    watched = """
        import ctypes, sys, time
        from swaptalk_jax.training.watchdog import Watchdog
        def in_a_collective(seconds):
            if sys.argv[1] == "locked":  # in C, without giving back Python's lock
                ctypes.PyDLL(None).sleep(seconds)
            time.sleep(seconds)
        with Watchdog(float(sys.argv[2]), "[sync]") as watchdog:
            for step in range(1, 8):
                watchdog.pet(f"step {step}")
                time.sleep(0.25)
                if step == 7 and sys.argv[1] != "lives":
                    in_a_collective(60)
        time.sleep(1.5)  # over: nobody watches
        print("done")
    """
    command = script(watched)
    began = time.monotonic()
    runs = {
        how: start([*command, *how])
        for how in (("hangs", "1"), ("locked", "1"), ("lives", "1"), ("lives", "0"))
    }
    told = {how: (run.communicate(timeout=50)[0], run.returncode) for how, run in runs.items()}
    assert time.monotonic() - began < 50  # none slept its minute
    text, code = told["hangs", "1"]
    assert code == errors.HUNG
    assert re.search(r"^\[sync\] hangs at step 7, for 1 s", text, re.M) and "done" not in text
    assert "in_a_collective" in text  # the stack
    text, code = told["locked", "1"]
    assert code == 1 and "in_a_collective" in text and "done" not in text
    for how in (("lives", "1"), ("lives", "0")):
        assert told[how] == ("done\n", 0)


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, errors.STOPPED), (signal.SIGTERM, errors.PREEMPTED)],
)
def test_a_signal_asks_for_a_stop_and_a_second_one_is_not_kept(number, code):
    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    with Interrupt() as interrupt:
        assert interrupt.asked(1) is None
        os.kill(os.getpid(), number)
        assert interrupt.asked(2) == code and interrupt.asked(3) == code
        assert signal.getsignal(number) == signal.SIG_DFL  # not even Python can hold it up
    assert {n: signal.getsignal(n) for n in before} == before


@pytest.mark.parametrize(
    ("number", "code"),
    [("SIGTERM", errors.PREEMPTED), ("SIGINT", errors.STOPPED)],
)
def test_all_stop_at_the_same_step_when_one_is_told(script, number, code):
    command = script(LOOP.replace("NOW", f"os.kill(os.getpid(), signal.{number})"))
    out, returned = launched(command)
    stops = dict(re.findall(r"^(\d): \[loop\] stopped at (\d+)$", out, re.M))
    assert set(stops) == {"0", "1"} and stops["0"] == stops["1"], out
    assert int(stops["0"]) > 20 and returned == code


def test_one_that_fails_ends_the_others_soon_and_its_reason_is_told(script):
    command = script(LOOP.replace("NOW", 'raise ValueError("no such thing")'))
    began = time.monotonic()
    out, returned = launched(command)
    assert returned == 1 and "1: ValueError: no such thing" in out, out
    # If it did not end at once, both would wait 300 s at JAX's barrier.
    assert time.monotonic() - began < 60


def launched(command, *options):
    """(output, exit code) of two processes of a command."""
    run = start([*LAUNCHER, "--processes=2", "--restarts=0", *options, "--", *command])
    out, _ = run.communicate(timeout=120)
    return out, run.returncode


JOIN = """
    import sys
    from types import SimpleNamespace
    from ml_collections import ConfigDict
    from swaptalk_jax import command
    from swaptalk_jax.training import processes
    config = ConfigDict(
        {"distributed": True, "join_seconds": float(sys.argv[1]), "compile_cache": ""}
    )
    work = lambda _: print("joined", processes.index())
    raise SystemExit(command.run("join", work, SimpleNamespace(config=config)))
"""


def test_a_process_whose_peer_is_missing_gives_up_in_one_line(script):
    command = script(JOIN)
    more = {"JAX_COORDINATOR_ADDRESS": f"localhost:{free_port()}", "SWAPTALK_PROCESSES": "3"}
    runs = [start([*command, "6"], **more, SWAPTALK_PROCESS=i) for i in "02"]
    told = [run.communicate(timeout=60)[0] for run in runs]
    assert [run.returncode for run in runs] == [errors.HUNG] * 2, told
    for index, text in zip("02", told, strict=True):
        assert f"process {index} of 3 waits for the others at localhost" in text
        assert "did not come within 6 s" in text.splitlines()[-1]
        assert "Check failure" not in text and "Traceback" not in text


def test_ctrl_c_is_heard_while_waiting(script):
    more = {"JAX_COORDINATOR_ADDRESS": f"localhost:{free_port()}", "SWAPTALK_PROCESSES": "2"}
    run = start([*script(JOIN), "100"], **more, SWAPTALK_PROCESS="1")
    assert any("[join] process 1 of 2 waits" in line for line in run.stdout)
    time.sleep(0.5)
    run.send_signal(signal.SIGINT)
    rest, _ = run.communicate(timeout=20)
    assert run.returncode == errors.STOPPED and "Traceback" not in rest


UNEVEN = """
    import sys, time
    import jax, jax.numpy as jnp, numpy as np
    from jax.sharding import Mesh, NamedSharding, PartitionSpec
    from ml_collections import ConfigDict
    from swaptalk_jax.training import processes
    processes.join(ConfigDict({"join_seconds": 60}))
    processes.meet()
    time.sleep(35.0 * jax.process_index())  # one that takes long to compile
    cut = NamedSharding(Mesh(np.array(jax.devices()), ("data",)), PartitionSpec("data"))
    ones = jax.make_array_from_process_local_data(cut, np.ones(2, np.float32))
    print("largest", float(jax.jit(jnp.max)(ones)))
"""


def test_processes_that_have_met_may_compile_for_longer_than_gloo_waits(script):
    out, returned = launched(script(UNEVEN), "--devices_per_process=2")
    assert returned == 0 and out.count("largest 1.0") == 2, out


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({}, "coordinator_address should be defined"),
        ({"SWAPTALK_PROCESSES": "2", "SWAPTALK_PROCESS": "2"}, "SWAPTALK_PROCESS=2"),
    ],
)
def test_an_environment_without_a_cluster_is_refused_in_one_line(script, more, told):
    run = start([*script(JOIN), "5"], **more)
    out, _ = run.communicate(timeout=60)
    assert run.returncode == errors.REFUSED
    line = out.splitlines()[-1]
    assert line.startswith("[join]") and told in line and "Traceback" not in out

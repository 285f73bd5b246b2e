"""Costs of a training step on machines that aren't there, without its machine code.

libtpu assigns buffers after seconds, and then makes machine code, that nobody here will run, for
minutes (VQGAN of the paper's size, one core: 1058 s, without it 65). So it works in a process of
its own, which has XLA write down the optimised program with its buffers (`xla_dump_to`)
and ends when these stand. From a compiler that doesn't write them, costs come when it is done.
"""

import contextlib
import dataclasses
import math
import multiprocessing
import os
import re
import tempfile
import threading
import time
import traceback
from pathlib import Path

import jax

from data_pipelines import children
from swaptalk_jax import backend
from swaptalk_jax.costs import count, hlo
from swaptalk_jax.costs.causes import Cause, by_cause
from swaptalk_jax.errors import SwapTalkError
from swaptalk_jax.planning.abstract import Abstract
from swaptalk_jax.planning.targets import Target
from swaptalk_jax.training import sharding

# The file that follows the buffers, so that these are whole; `%s`: what stands before it.
WRITTEN = "*jit_step*.after_optimizations_after_buffer_assignment.txt"
GIB = 1 << 30
UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": GIB, "T": 1 << 40}


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a compiler says of a step. costs: None where it was refused for want of memory.

    used: bytes a device that it takes, or that it wanted (inf: the compiler didn't say). causes: of
    causes.by_cause on the target's chip.
    """

    costs: count.Costs | None
    used: float
    causes: dict[str, Cause] = dataclasses.field(default_factory=dict)


class CompileError(SwapTalkError):
    """The compiler failed; the message is its own."""


def outcome(
    config, upstream, size: int, target: Target, batch_size: int, code: bool = False
) -> Outcome:
    """Compiles config's step for a target, in another process.

    config, size: as Abstract takes them. upstream: {stage: config} of what isn't trained yet.
    batch_size: global. code: wait for the machine code too, and know its size (costs.memory.code;
    else 0).

    Raises: CompileError.
    """
    context = multiprocessing.get_context("spawn")  # libtpu's threads don't outlive a fork
    ours, theirs = context.Pipe(duplex=False)
    with tempfile.TemporaryDirectory() as folder:
        job = (config, upstream, size, target, batch_size, code, folder)
        process = context.Process(target=_child, args=(theirs, *job), daemon=True)
        process.start()
        theirs.close()
        try:
            answer = ours.recv()
        except EOFError:
            process.join()
            log = Path(folder) / "log"
            said = log.read_text().strip().splitlines() if log.exists() else []
            answer = CompileError(f"a compilation ended with {process.exitcode}: {said[-1:]}")
        finally:
            process.kill()
            process.join()
    if isinstance(answer, Exception):
        raise answer
    return answer


def _child(results, config, upstream, size, target, batch_size, code, folder):
    log = os.open(Path(folder) / "log", os.O_CREAT | os.O_WRONLY)
    for stream in (1, 2):  # libtpu has much to say
        os.dup2(log, stream)
    children.end_with_parent()
    tell = _Telling(results)
    try:
        jax.config.update("jax_platforms", "cpu")
        devices = target.devices()
        if target.estimate:
            jax.lax.platform_dependent = not_of_a_cpu
            # Of a program that never runs the machine code may be slow: half of the compiling.
            options = backend.compiler_options() | {"xla_backend_optimization_level": 0}
        else:
            options = {"xla_dump_to": folder, "xla_dump_hlo_as_text": True}
        mesh = sharding.make_mesh(config.mesh, devices)
        step = Abstract(config, upstream.__getitem__, size).lower(mesh, batch_size, options)
        if not code:
            threading.Thread(target=_watch, args=(tell, Path(folder), target), daemon=True).start()
        compiled = step.compile()
        found = by_cause(hlo.parse(compiled.as_text()), target.chip)
        costs = count.costs_of(compiled)
        tell(Outcome(costs, costs.memory.total, found))
    except jax.errors.JaxRuntimeError as error:
        refused = wanted(str(error))
        tell(CompileError(str(error)) if refused is None else Outcome(None, refused))
    except Exception as error:
        traceback.print_exc()
        tell(CompileError(f"{type(error).__name__}: {error}"))


def not_of_a_cpu(*args, default, **branches):
    """jax.lax.platform_dependent for a GPU's program that the CPU's compiler takes."""
    return branches.get("cuda", default)(*args)


class _Telling:
    """Sends the first of the results and ends the process: threads of libtpu would go on."""

    def __init__(self, results):
        self.results, self.lock = results, threading.Lock()

    def __call__(self, result):
        with self.lock:
            self.results.send(result)
            os._exit(0)


def _watch(tell, folder, target):
    while True:
        time.sleep(0.2)
        with contextlib.suppress(StopIteration):
            outcome = _dumped(folder, target)
            break
    tell(outcome)


def _dumped(folder, target):
    """Outcome of the program in a folder of XLA's; StopIteration: it isn't whole yet."""
    written = next(folder.glob(WRITTEN))
    stem = written.name.partition(".after_optimizations")[0] + ".after_optimizations"
    memory = buffers((folder / f"{stem}-buffer-assignment.txt").read_text())
    module = hlo.parse((folder / f"{stem}.txt").read_text())
    costs = dataclasses.replace(count.Count(module).all(), memory=memory)
    return Outcome(costs, memory.total, by_cause(module, target.chip))


def buffers(text: str) -> count.Memory:
    """Memory by the text of XLA's buffer assignment: all in main memory, `code` 0.

    Other spaces than main memory have a color there; thread-local is what kernels hold inside.
    """
    sums = dict.fromkeys(("arguments", "outputs", "temporaries", "aliased"), 0)
    for size, rest in re.findall(r"^allocation \d+: size (\d+)(.*)$", text, re.MULTILINE):
        if re.search(r"\bcolor [1-9]|\bthread-local", rest):
            continue
        argument, output = ", parameter " in rest, re.search(r"maybe-live-out|output shape", rest)
        sums["arguments"] += int(size) * bool(argument)
        sums["outputs"] += int(size) * bool(output)
        sums["aliased"] += int(size) * bool(argument and output)
        sums["temporaries"] += int(size) * (not argument and not output)
    return count.Memory(code=0, **sums)


def wanted(message: str) -> float | None:
    """Bytes that a refused program wanted, of the compiler's message; None: no want of memory."""
    if "RESOURCE_EXHAUSTED" not in message and "Ran out of memory" not in message:
        return None
    amount = re.search(r"(?:Used |HLO temporaries \()([\d.]+)([KMGT]?)\b", message)
    return float(amount[1]) * UNITS[amount[2]] if amount else math.inf

"""One measurement of the card at hand, with random values in place of data and trained networks.

    python -m swaptalk_jax.benchmark --config=configs/sync.py --card=step --out=row.jsonl

launch/gpu_check.sh makes a whole table of them. Each is a process of its own, and appends what it
finds to the file as soon as it knows it, a JSON object a line: what has been written stays,
whatever becomes of the process. Only the first device is measured.
"""

import json
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np

from data_pipelines import children
from data_pipelines.loading import views
from data_pipelines.synthetic import random_records
from swaptalk_jax import backend
from swaptalk_jax.benchmarks import frames, random_stage, steps
from swaptalk_jax.configs import common
from swaptalk_jax.costs import count
from swaptalk_jax.errors import RunError
from swaptalk_jax.planning import abstract, ahead, search
from swaptalk_jax.planning.targets import target
from swaptalk_jax.training import setup

ROUNDS = 5  # turns of each measurement; told are least, median and most
TURN = 1.0  # seconds that a turn takes, about
GIB = 1 << 30
PLANNED = "gpu:h100x1"  # what is counted of a program is the same for every GPU
SEARCHING = 0.6  # share of the time of "largest" after which no other batch is tried
# The search for the largest batch compiles what never runs: without trials on the card.
UNTUNED = {"xla_gpu_autotune_level": 0}


def measure(config, what, out, seconds, memory=0.0):
    """Does one measurement, a name of MEASUREMENTS, and appends what it finds to the file `out`.

    seconds: what it may take about; a search ends in time. memory: GiB that "largest" may fill; 0:
    what the device says. Raises RunError: no file is named, or the device doesn't say.
    """
    if not out:
        raise RunError("--card needs --out=FILE, where the lines go")
    children.end_with_parent()
    path, device = Path(out), jax.devices()[0]

    def tell(**found):
        with path.open("a") as file:
            file.write(json.dumps(found) + "\n")

    tell(device=device.device_kind, jax=jax.__version__, platform=device.platform)
    MEASUREMENTS[what](config, tell, seconds, memory)


def peak(config, tell, seconds, memory):
    """TFLOP/s of one large matrix product, GB/s of one large copy."""
    del config, seconds, memory
    large = jax.default_backend() != "cpu"
    n, bytes_ = (8192, GIB) if large else (512, 1 << 24)
    a, b = (jax.random.normal(jax.random.key(i), (n, n), jnp.bfloat16) for i in range(2))
    product = jax.jit(jnp.matmul)
    times = _turns(lambda: product(a, b))
    tell(matmul=2.0 * n**3 / np.median(times), size=n)
    whole = jnp.zeros(bytes_ // 4, jnp.float32)
    copied = jax.jit(lambda x: x + 1.0)
    times = _turns(lambda: copied(whole))
    tell(copy=2.0 * bytes_ / np.median(times))
    tell(memory=_limit(0.0))


def step(config, tell, seconds, memory):
    """A training step at the config's batch, and what of the time its input takes."""
    del seconds, memory
    stage = random_stage.RandomStage(config)
    batch_size = config.train.batch_size
    tell(batch=batch_size, precision=backend.compute_dtype(config.precision))
    began = time.perf_counter()
    lowered = stage.lower(batch_size)
    compiled = lowered.compile()
    needs = count.memory_of(compiled)
    tell(compiling=time.perf_counter() - began, memory=needs and needs.total)
    update, batch = stage.update(lowered, compiled), stage.batch(lowered)
    times = _turns(lambda: update(batch))
    tell(step=times, finite=bool(np.isfinite(update(batch)["loss"])))
    with tempfile.TemporaryDirectory() as folder:
        _write_records(Path(folder), stage, batch_size)
        config = config.copy_and_resolve_references()
        config.data.update(root=folder, extra=())
        stream = setup.Batches(config, stage.abstract.stage.view, stage.mesh).training(0)
        taken = steps.in_turns(update, batch, stream, _each(times[1]), ROUNDS)
        tell(input=steps.input_share(taken), loader=_spread(taken["loader alone"]))
    tell(flops=_flops(lowered, compiled))  # seconds of counting, and the plan's come first


def largest(config, tell, seconds, memory):
    """The largest batch: by the compiler's own numbers first, then one that really runs."""
    began, limit = time.perf_counter(), _limit(memory)
    if not limit:
        raise RunError("this device doesn't tell its memory; give --card_memory=GIB")
    stage, fitting, tried = random_stage.RandomStage(config), [0], {}
    options = backend.compiler_options() | (UNTUNED if jax.default_backend() == "gpu" else {})

    def attempt(n):
        if time.perf_counter() - began > SEARCHING * seconds:
            raise TimeoutError
        try:
            used = count.memory_of(stage.lower(n).compile(options)).total
        except jax.errors.JaxRuntimeError as error:
            used = ahead.wanted(str(error))
            if used is None:
                raise
        fits = used <= limit
        fitting.extend([n] if fits else [])
        tried[n] = used
        tell(tried=tried, largest=max(fitting), limit=limit)
        return SimpleNamespace(used=used, fits=fits)

    try:
        search.largest(attempt, config.train.batch_size, limit)
        tell(whole=True)
    except TimeoutError:
        tell(whole=False)
    for n in sorted(set(fitting) - {0}, reverse=True):
        try:
            lowered = stage.lower(n)
            update = stage.update(lowered, lowered.compile())
            batch = stage.batch(lowered)
            tell(ran=n, step=_turns(lambda: update(batch)))  # noqa: B023
            return
        except jax.errors.JaxRuntimeError as error:
            if ahead.wanted(str(error)) is None:
                raise
            tell(refused=n)


def infer(config, tell, seconds, memory):
    """Frames/s of a clip whose every frame has a face, with networks of the config's size."""
    del seconds, memory
    with tempfile.TemporaryDirectory() as folder:
        frames.measure(config, Path(folder), tell, ROUNDS)


def plan(config, tell, seconds, memory):
    """FLOPs and memory traffic of a step as launch/plan.py counts them for a GPU, on a CPU."""
    del seconds, memory
    config, upstream = config.copy_and_resolve_references(), abstract.upstream(config.size)
    config.precision = "bfloat16"
    size, batch_size = common.IMAGE_SIZE[config.size], config.train.batch_size
    outcome = ahead.outcome(config, upstream, size, target(PLANNED), batch_size)
    tell(batch=batch_size, flops=outcome.costs.flops, bytes=outcome.costs.bytes)


MEASUREMENTS = {"peak": peak, "step": step, "largest": largest, "infer": infer, "plan": plan}


def _each(seconds):
    """Calls that take about TURN."""
    return max(1, min(100, round(TURN / max(seconds, 1e-6))))


def _turns(call):
    """[least, median, most] seconds of a call in ROUNDS turns, after one that is not counted."""
    jax.block_until_ready(call())
    each = _each(steps.seconds(call, 1))
    return _spread([steps.seconds(call, each) for _ in range(ROUNDS)])


def _spread(times):
    return [float(f(times)) for f in (np.min, np.median, np.max)]


def _limit(memory):
    """Bytes that arrays may fill: `memory` GiB, or what the device says; 0: it doesn't."""
    told = jax.devices()[0].memory_stats() or {}
    return memory * GIB or float(told.get("bytes_limit", 0))


def _flops(lowered, compiled):
    """FLOPs of a step.

    A GPU's program hides products in calls of libraries, so there the program is counted that went
    into the compiler.
    """
    if jax.default_backend() == "gpu":
        return float((lowered.cost_analysis() or {}).get("flops", 0.0))
    return count.costs_of(compiled).flops


def _write_records(folder, stage, batch_size):
    """Records of the stage's kind, more than the loader keeps decoded where the size is full."""
    kind = views.VIEWS[stage.abstract.stage.view].kind
    number = max(256 if common.full(stage.config.size) and kind == "codes" else 64, batch_size)
    random_records.write(folder, stage.abstract.metadata(), stage.codes, number, (kind,))

"""Seconds of a training step, of its input, and of both together; its share of a machine's peak."""

import time

import jax
import jax.numpy as jnp
import numpy as np

from data_pipelines.loading import loader
from swaptalk_jax.costs import chips
from swaptalk_jax.training.setup import Trainer


def seconds(function, steps):
    """Seconds that a call of function() takes on average, the last one's result waited for."""
    began, before = time.perf_counter(), None
    for _ in range(steps):
        after = function()
        jax.block_until_ready(before)  # as training: one step is always queued
        before = after
    jax.block_until_ready(before)
    return (time.perf_counter() - began) / steps


def measure(config, steps, rounds=5):
    """({name: seconds a step}, share of the time that input takes, seconds to compile, Costs).

    Loader alone, step alone (one batch again and again), and both as training has them: there the
    next batch is made while a step runs. They take turns, `rounds` times, so that a machine that
    becomes slower does so for all of them; told are medians. Costs (costs.count) are of a device.
    """
    run = Trainer(config)
    state, stream = run.new_state(), run.batches.training(0)
    compiling = run.compile(state)
    batch = next(stream)

    def step(batch):
        nonlocal state
        state, metrics = run.update(state, batch)
        return metrics

    jax.block_until_ready(step(batch))
    taken = in_turns(step, batch, stream, max(1, steps // rounds), rounds)
    rows = {name: float(np.median(times)) for name, times in taken.items()}
    return rows, input_share(taken), compiling, run.costs()


def in_turns(step, batch, stream, steps, rounds):
    """{"loader alone", "step alone", "loader + step": [seconds a step in each round]}.

    step: function of a batch. batch: that of "step alone". stream: iterator of batches. steps: of
    each of the three in each round.
    """
    ways = {
        "loader alone": lambda: next(stream),
        "step alone": lambda: step(batch),
        "loader + step": lambda: step(next(stream)),
    }
    taken = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            if "loader" in name:  # what was made meanwhile would flatter it
                seconds(ways["loader alone"], 2 * loader.PREFETCH)
            taken[name].append(seconds(way, steps))
    return taken


def input_share(taken):
    """The share of the time that input takes, of what `in_turns` found: a median of rounds."""
    pairs = zip(taken["step alone"], taken["loader + step"], strict=True)
    return max(0.0, float(np.median([1.0 - alone / both for alone, both in pairs])))


def tell(config, steps):
    """Prints what `measure` finds, and the share of the peak that the step reaches."""
    rows, share, compiling, costs = measure(config, steps)
    size, kind = config.train.batch_size, jax.devices()[0].device_kind
    print(f"{config.stage}:{config.size}, batch {size}, {jax.device_count()} x {kind}; ", end="")
    print(f"step compiled in {compiling:.1f} s; a device: {costs.flops / 1e9:.4g} GFLOP, ", end="")
    print(f"{costs.bytes / 1e9:.4g} GB moved")
    for name, each in rows.items():
        print(f"  {name:14} {each * 1e3:10.1f} ms/step {size / each:10.1f} examples/s")
    print(f"  input takes {share:.1%} of the time")
    rate, (peak, source) = costs.flops / rows["loader + step"], peak_flops(kind)
    print(f"  {rate / 1e12:.4g} TFLOP/s a device, {rate / peak:.1%} of {source}")


def peak_flops(kind):
    """(FLOP/s, what they are): published ones of a chip, else those of a matrix product here."""
    if chip := chips.find(kind):
        return chip.peak_flops, "the chip's published peak"
    side = 2048
    matrix = jnp.ones((side, side))
    product = jax.jit(jnp.matmul)
    jax.block_until_ready(product(matrix, matrix))
    best = min(seconds(lambda: product(matrix, matrix), 3) for _ in range(5))
    return 2 * side**3 / best, f"the {2 * side**3 / best / 1e12:.3g} that a matrix product reaches"

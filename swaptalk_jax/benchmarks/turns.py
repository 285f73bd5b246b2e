"""Two ways of the same work, measured in turns, so that a slower hour slows both."""

import time

import jax
import numpy as np


def in_turns(ours, theirs, turns):
    """[(seconds of ours, of theirs)] of so many pairs; who begins a pair alternates."""
    pairs = []
    for i in range(turns):
        if i % 2:
            second = theirs()
            pairs.append((ours(), second))
        else:
            first = ours()
            pairs.append((first, theirs()))
    return pairs


def timed(function, *arguments, times=5):
    """() -> seconds of one of `times` calls, the results of all waited for."""

    def turn():
        began = time.perf_counter()
        for _ in range(times):
            jax.block_until_ready(function(*arguments))
        return (time.perf_counter() - began) / times

    return turn


def spread(values):
    """A median and its range as text: 1.52 (1.31 to 1.70)."""
    return f"{np.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"

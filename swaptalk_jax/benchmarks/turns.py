"""Two ways of the same work, measured in turns, so that a slower hour slows both."""

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


def spread(values):
    """A median and its range as text: 1.52 (1.31 to 1.70)."""
    return f"{np.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"

"""Per-example values, and picks that are spread evenly."""

import collections

import numpy as np


class Tally:
    """Per-example values by name: their means are the numbers, their counts the examples."""

    def __init__(self):
        self.values = collections.defaultdict(list)

    def add(self, values):
        """values: {name: array [n]}."""
        for name, value in values.items():
            if len(value):
                self.values[name].append(np.asarray(value))

    def means(self):
        """{name: mean over all examples}."""
        return {
            name: float(np.mean(np.concatenate(values), dtype=np.float64))
            for name, values in self.values.items()
        }

    def counts(self):
        """{name: number of examples}."""
        return {name: sum(map(len, values)) for name, values in self.values.items()}


def eighths(errors, examples, most):
    """{name: at most `most` of the examples} of the worst, the median and the best
    eighth: "Worst eighth", "Median", "Best eighth".

    errors [n] of examples [n]; an eighth is rounded up, its examples are spread over it evenly,
    worst first.
    """
    order = np.argsort(-np.asarray(errors), kind="stable")
    count = -(-len(order) // 8)
    found = {}
    for name, first in (
        ("Worst eighth", 0),
        ("Median", (len(order) - count) // 2),
        ("Best eighth", len(order) - count),
    ):
        found[name] = [examples[order[first + i]] for i in spread(count, most)]
    return found


def spread(n, most):
    """At most `most` of the numbers 0 ... n - 1, evenly spread, as a list."""
    count = min(n, most)
    return [i * n // count for i in range(count)]


def chunks(items, size):
    """Consecutive pieces of a list."""
    return [items[i : i + size] for i in range(0, len(items), size)]

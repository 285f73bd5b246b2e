"""Which examples a report shows."""

import numpy as np

from swaptalk_jax.evaluation.tally import eighths


def test_eighths_are_the_worst_the_middle_and_the_best():
    errors = np.random.default_rng(0).permutation(32)
    found = eighths(errors, [f"error {e}" for e in errors], most=2)
    assert found == {
        "Worst eighth": ["error 31", "error 29"],  # of 31 ... 28
        "Median": ["error 17", "error 15"],  # of 17 ... 14
        "Best eighth": ["error 3", "error 1"],
    }


def test_a_few_examples_are_enough():
    assert eighths([1.0, 3.0], "ab", most=4) == {
        "Worst eighth": ["b"],
        "Median": ["b"],
        "Best eighth": ["a"],
    }

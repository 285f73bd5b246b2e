"""The largest batch that fits, in few compilations."""

import math


def largest(attempt, first, limit):
    """The largest n of those that `rounded` knows whose attempt(n) fits; 0: not even 1.

    attempt(n) -> object with `fits` and `used` bytes. Memory grows about linearly with a batch, so
    the search goes where the line through the two nearest attempts meets `limit`, and ends when n
    fits and the next larger one doesn't.
    """
    low, high = 0, None  # fits, doesn't
    tried, n = {}, rounded(first)
    while True:
        tried[n] = attempt(n)
        low, high = (n, high) if tried[n].fits else (low, n)
        if high is not None and rounded(low + 1, up=True) >= high:
            return low
        known = sorted((k for k in tried if math.isfinite(tried[k].used)), key=lambda k: abs(k - n))
        if len(known) < 2:
            n = 2 * n if tried[n].fits else max(1, n // 2)
        else:
            a, b = sorted(known[:2])
            slope = max(1.0, (tried[b].used - tried[a].used) / (b - a))
            n = rounded(max(1, int(a + (limit - tried[a].used) / slope)))
        top = 8 * low if high is None else high - 1  # a line from small batches reaches too far
        n = min(max(n, low + 1), max(top, 1))
        n = rounded(n) if rounded(n) > low else rounded(low + 1, up=True)


def rounded(n, up=False):
    """n with three binary digits: 1 ... 8, 10, 12, 14, 16, 20 ...; the next one below, or above."""
    unit = 1 << max(0, int(n).bit_length() - 3)
    return -(-n // unit) * unit if up else n // unit * unit

"""The scaling benchmark's checks fail where they should."""

import re

import pytest

from swaptalk_jax.benchmarks import scaling


def row(devices, kind="strong", **changed):
    """A row as theory has it: 16 examples of 1 GFLOP, 4 MB of gradients."""
    batch = 16 if kind == "strong" else 2 * devices
    known = {
        "devices": devices,
        "processes": 1,
        "kind": kind,
        "batch": batch,
        "losses": [2.0, 1.5, 1.2],
        "seconds": 0.1 * batch / devices,
        "flops": 1e9 * batch / devices,
        "bytes": 4.01e6 if devices > 1 else 0,
        "gradient_bytes": 4e6,
    }
    return known | changed


def failures(*rows):
    rows = [row(1), row(1, "weak"), *rows]
    scaling._compare(rows)
    return [line for found in rows for line in found["failed"]], rows


def test_what_theory_says_passes():
    failed, rows = failures(row(8), row(4), row(4, "weak"))
    assert failed == []
    assert [r["efficiency"] for r in rows] == pytest.approx([1.0] * 5)


@pytest.mark.parametrize(
    "changed, told",
    [
        ({"losses": [2.0, 1.51, 1.2]}, "losses differ"),
        ({"flops": 16e9}, "FLOPs are 8.00 of theory"),  # every device computes the whole batch
        ({"bytes": 0}, "collective bytes are 0.00"),  # gradients that nobody averages
        ({"bytes": 8e6}, "collective bytes are 2.00"),
    ],
)
def test_what_theory_does_not_say_is_named(changed, told):
    failed, _ = failures(row(8, **changed))
    assert len(failed) == 1 and told in failed[0] and "8 devices" in failed[0]


def test_what_a_step_costs_whatever_its_batch_is_no_failure():
    rows = [row(n, kind) for kind in ("strong", "weak") for n in (1, 2, 4)]
    for found in rows:
        found["flops"] += 5e9  # Muon's
    scaling._compare(rows)
    assert [line for found in rows for line in found["failed"]] == []
    rows[1]["flops"] = rows[0]["flops"]  # two devices that compute the same
    scaling._compare(rows)
    assert "FLOPs are 1.62 of theory" in rows[1]["failed"][0]


def test_the_page_draws_all_rows_and_names_what_failed():
    failed, rows = failures(row(8, flops=16e9), row(4, "weak"), row(2, processes=2))
    page = scaling._page("sync:micro", scaling._table(rows, None), rows, failed)
    assert page.count("<polyline") >= 6 and "CHECK strong, 8 devices" in page
    assert len(re.findall("<tr>", page)) == len(rows) + 1

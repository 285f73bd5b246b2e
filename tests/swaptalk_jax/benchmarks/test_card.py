"""Measurements of a card: the search for the largest batch, and the section that tells of them."""

import math
from types import SimpleNamespace

import jax
import pytest

from swaptalk_jax import errors
from swaptalk_jax.benchmarks import card, card_report
from swaptalk_jax.planning import search

GIB = 1 << 30


class Stage:
    """A step whose compiler says 1 GiB and 0.5 GiB an example, and that runs up to `runs`."""

    def __init__(self, runs):
        self.runs, self.compiled = runs, []

    def lower(self, n):
        self.compiled.append(n)
        stats = SimpleNamespace(
            argument_size_in_bytes=GIB,
            output_size_in_bytes=0,
            temp_size_in_bytes=n * GIB // 2,
            alias_size_in_bytes=0,
            generated_code_size_in_bytes=0,
        )
        program = SimpleNamespace(memory_analysis=lambda: stats, n=n)
        return SimpleNamespace(n=n, compile=lambda *options: program)

    def batch(self, lowered):
        return lowered.n

    def update(self, lowered, program):
        def step(batch):
            if batch > self.runs:
                raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")
            return {"loss": 0.0}

        return step


def searched(monkeypatch, stage, seconds=math.inf, memory=16.0):
    """What "largest" tells of a stage, merged."""
    monkeypatch.setattr(card.random_stage, "RandomStage", lambda config: stage)
    monkeypatch.setattr(card, "TURN", 1e-3)
    found = {}
    config = SimpleNamespace(train=SimpleNamespace(batch_size=4))
    card.largest(config, lambda **told: found.update(told), seconds, memory)
    return found


def test_the_largest_batch_is_what_the_compiler_says_and_what_runs(monkeypatch):
    stage = Stage(runs=1000)
    found = searched(monkeypatch, stage)
    assert found["largest"] == found["ran"] == search.rounded(30) and found["whole"]
    assert found["tried"][search.rounded(found["ran"] + 1, up=True)] > found["limit"]
    assert "refused" not in found and len(stage.compiled) < 10


def test_where_the_largest_batch_does_not_run_the_next_smaller_one_is_tried(monkeypatch):
    found = searched(monkeypatch, Stage(runs=20))
    assert found["refused"] > 20 >= found["ran"] >= 4


def test_the_search_ends_in_time_and_still_runs_what_it_found(monkeypatch):
    stage = Stage(runs=1000)
    monkeypatch.setattr(card, "SEARCHING", 0.0)
    monkeypatch.setattr(card.time, "perf_counter", iter(range(10_000)).__next__)
    found = searched(monkeypatch, stage, seconds=1.0)
    assert found == {"whole": False} and stage.compiled == []
    monkeypatch.setattr(card, "SEARCHING", 1.0)
    found = searched(monkeypatch, stage, seconds=2.5)
    assert found["whole"] is False and found["ran"] == max(found["tried"])


def test_a_device_that_does_not_tell_its_memory_is_told_it(monkeypatch):
    with pytest.raises(errors.RunError, match="--card_memory"):
        searched(monkeypatch, Stage(1), memory=0.0)


def test_without_a_file_nothing_is_measured():
    with pytest.raises(errors.RunError, match="--out=FILE"):
        card.measure(None, "peak", "", 1.0)


def row(**values):
    return {"state": "done", "why": "", "device": "NVIDIA H200", "jax": "0.11.2"} | values


def test_the_section_sets_times_beside_the_bound():
    rows = {
        "peak": row(matmul=791.2e12, copy=4.32e12, size=8192),
        "step-swap": row(
            batch=8,
            step=[0.09, 0.1, 0.2],
            input=0.015,
            compiling=61.0,
            flops=1,
            precision="bfloat16",
        ),
        "plan-swap": row(flops=49.45e12, bytes=4.8e9),
        "largest-swap": row(ran=64, whole=False, step=[0.5, 0.64, 0.7]),
        "step-sync": row(batch=20, step=[0.1, 0.1, 0.1], flops=9.89e12),
        "largest-sync": row(largest=128, state="late", why="took longer than 9 s"),
        "step-vqgan": row(state="failed", why="the device's memory is too small"),
    }
    section = card_report.section({"size": "paper", "device": "NVIDIA H200", "rows": rows})
    cells = {line.split(" | ")[0][2:]: line for line in section.splitlines() if " | " in line}
    assert section.startswith("## NVIDIA H200\n") and "JAX 0.11.2" in section
    assert cells["swap"] == (  # 494.5 TFLOP/s of 989; 50 ms of arithmetic, 1 of traffic
        "| swap | 8 | 100 (90, 200) | 80 | 50.0% | 50, compute | 50% "
        "| 1.5% | 61 | at least 64 | 100 |"
    )
    sync = "| sync | 20 | 100 (100, 100) | 200 | 10.0%\\* | - | - | - | - | 128 (did not run) | - |"
    assert cells["sync"] == sync
    assert "791 TFLOP/s (80% of the data sheet)" in section and "4320 GB/s" in section
    assert "- `step-vqgan`: failed, the device's memory is too small" in section


def test_an_unknown_card_has_shares_of_its_own_product_and_no_bounds():
    rows = {
        "peak": row(matmul=100e12, size=8192),
        "step-swap": row(batch=8, step=[1.0, 1.0, 1.0], flops=1),
        "plan-swap": row(flops=25e12, bytes=1e9),
    }
    known = {"size": "paper", "device": "a card of 2031", "rows": rows}
    section = card_report.section(known)
    assert "| 25.0% | - | - |" in section and "of the matrix product" in section
    assert "| 20.7% | 206.6, compute | 21% |" in card_report.section(known, "l4")

"""Compiling ahead: the search, what is assumed of data and networks, and the numbers told."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import pytest

from data_pipelines import shapes
from swaptalk_jax import stages
from swaptalk_jax.costs import chips, targets
from swaptalk_jax.costs.abstract import Abstract

ROOT = Path(__file__).resolve().parent.parent
GIB = 1 << 30


def module():
    """launch/plan.py, which is a script."""
    spec = importlib.util.spec_from_file_location("plan", ROOT / "launch" / "plan.py")
    found = importlib.util.module_from_spec(spec)
    sys.modules["plan"] = found
    spec.loader.exec_module(found)
    return found


plan = module()


def get_config(name, size="micro"):
    return importlib.import_module(f"configs.{name}").get_config(size)


@pytest.mark.parametrize("first", [1, 5, 64])
@pytest.mark.parametrize("fixed, each, most", [(3, 1.1, 10), (1, 0.013, 1024), (15.5, 0.4, 1)])
def test_the_largest_batch_fits_and_the_next_larger_one_does_not(fixed, each, most, first):
    tried = {}

    def attempt(n):
        assert n not in tried, "compiled twice"
        # Small batches are odd, as they are in truth: their arrays stay in fast memory.
        used = (fixed + each * n - (0.5 * each if n < 3 else 0)) * GIB
        tried[n] = used <= 16 * GIB
        return SimpleNamespace(fits=tried[n], used=used)

    found = plan.largest(attempt, first, 16 * GIB)
    assert found == plan.rounded(most)
    assert tried[found] and not tried[plan.rounded(found + 1, up=True)]
    assert len(tried) <= 10


def test_where_nothing_fits_the_search_says_so():
    tried = []

    def attempt(n):
        tried.append(n)
        return SimpleNamespace(fits=False, used=float("inf"))

    assert plan.largest(attempt, 4, 16 * GIB) == 0
    assert tried == [4, 2, 1]


def test_batches_that_are_tried_have_three_binary_digits():
    steps = [1]
    while steps[-1] < 32:
        steps.append(plan.rounded(steps[-1] + 1, up=True))
    assert steps == [1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32]
    assert [plan.rounded(n) for n in steps] == steps
    assert plan.rounded(31) == 28


def test_a_refusal_tells_what_was_wanted_and_other_errors_stay_errors():
    text = "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 17.50G of 15.75G hbm."
    assert plan._wanted(jax.errors.JaxRuntimeError(text)) == 17.5 * GIB
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        plan._wanted(jax.errors.JaxRuntimeError("INTERNAL: a bug"))


def test_unknown_machines_are_refused(monkeypatch):
    with pytest.raises(SystemExit, match="chips: v4, v5e"):
        plan.target("gpu:h999x8")
    monkeypatch.setattr(targets.importlib.util, "find_spec", lambda name: None)

    def absent(*args, **kwargs):
        raise RuntimeError("no plugin")

    monkeypatch.setattr(targets.topologies, "get_topology_desc", absent)
    with pytest.raises(SystemExit, match=r"pip install 'jax\[tpu\]'"):
        plan.target("v5e:2x2")


@pytest.mark.parametrize("name", stages.NAMES)
def test_every_stage_is_described_without_data_or_networks(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # nothing of an earlier run is here
    config = get_config(name, "paper")
    config.precision = "bfloat16"
    made = Abstract(config, lambda n: get_config(n, "paper"), 512, identities=7)
    assert not list(tmp_path.iterdir())
    sizes = {k: sum(x.size for x in jax.tree.leaves(v)) / 1e6 for k, v in made.params.items()}
    told = " ".join(importlib.import_module(f"configs.{name}").__doc__.split())
    for network in config.model:  # the docstring's numbers are tested against the networks
        assert f"{network} {sizes[network]:.1f} M" in told
    wanted = {"images": "image", "pairs": "label", "windows": "reference", "swaps": "id_source"}
    assert wanted[made.stage.view] in made.batch(4)
    assert all(x.shape[0] == 4 for x in made.batch(4).values())
    assert set(made.frozen) == {slot for slot, folder in config.frozen.items() if folder}
    if name == "identity":
        assert made.params["head"].shape == (7, 512)
    if name == "swap":
        assert made.batch(4)["source"].shape == (4, 32, 32)
        assert made.batch(4)["id_source"].shape == (4, 512)


def test_shapes_are_those_of_the_records_and_of_what_a_view_makes_of_them():
    known = {"grid": (6, 4), "audio_width": 3, "embedding": 5}
    found = shapes.example("windows", {"window": 4, "context": 2}, known)
    described = {k: (x.shape, str(x.dtype)) for k, x in found.items()}
    assert described == {
        "codes": ((4, 6, 4), "uint16"),
        "reference": ((6, 4), "uint16"),
        "audio": ((4, 4, 3), "float32"),
    }


PLANS = """
import dataclasses, importlib, importlib.util, json, sys
import jax
jax.config.update("jax_platforms", "cpu")
spec = importlib.util.spec_from_file_location("plan", "launch/plan.py")
plan = sys.modules["plan"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(plan)
goal = plan.target(sys.argv[1])
made = {}
for name, stage, change in json.loads(sys.argv[2]):
    config = importlib.import_module(f"configs.{stage}").get_config("micro")
    config.root = config.workdir = config.data.root = "/nowhere"
    config.update_from_flattened_dict(change)
    planner = plan.Planner(config, goal)
    found = plan.planned(planner, False)
    made[name] = dataclasses.asdict(found.costs) | {
        "batch": found.batch, "fits": found.fits, "total": found.used,
        "parameters": sum(x.size for x in jax.tree.leaves(planner.abstract.params)),
        "bound": dataclasses.asdict(found.bound), "report": plan.report(found),
        "row": plan.row(found),
    }
print(json.dumps(made))
"""


def compiled(topology, *programs):
    """{name: what a plan says} of (name, stage, changes of its micro config)."""
    command = [sys.executable, "-c", PLANS, topology, json.dumps(programs)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def plans():
    """Of simulated GPUs."""
    whole = {"train.batch_size": 12}  # no multiple of 8
    cut = {"sharding.params": True, "sharding.opt_state": True, "sharding.min_size": 1}
    return compiled(
        "gpu:h100x8",
        ("whole", "expert", whole),
        ("cut", "expert", whole | cut),
        ("parts", "expert", whole | {"train.accumulate": 2}),
    )


def test_data_parallel_steps_sum_up_their_gradients(plans):
    found = plans["whole"]
    reduced = found["collectives"]["all-reduce"]["bytes"]
    assert found["parameters"] * 4 <= reduced < found["parameters"] * 4 * 1.05
    assert found["fits"] and found["flops"] > 1e5
    assert found["batch"] == 16  # the next that 8 devices can share
    assert found["bound"]["compute"] == found["flops"] / chips.find("h100").peak_flops
    # The state, that Adam trebles, goes where it came from.
    assert found["memory"]["aliased"] > found["parameters"] * 4 * 2


def test_a_cut_state_takes_an_eighth_of_the_memory(plans):
    assert plans["cut"]["memory"]["arguments"] < 0.5 * plans["whole"]["memory"]["arguments"]
    assert "all-gather" in plans["cut"]["collectives"]


def test_microbatches_cost_together_what_the_batch_costs(plans):
    assert plans["parts"]["flops"] == pytest.approx(plans["whole"]["flops"], rel=0.02)
    assert plans["parts"]["endless"] == 0


def test_the_report_says_that_it_is_an_estimate_and_the_table_has_its_columns(plans):
    assert "expert on 8 x h100, batch 16 (2 a device)" in plans["whole"]["report"]
    assert "(estimate)" in plans["whole"]["report"] and "examples/s" in plans["whole"]["report"]
    assert len(plans["whole"]["row"]) == len(plan.COLUMNS)
    lines = plan.table([plans["whole"]["row"]]).splitlines()
    assert len(lines) == 3 and len({line.count("|") for line in lines}) == 1


@pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="no libtpu: pip install 'jax[tpu]'"
)
def test_libtpu_compiles_for_a_pod_slice_that_is_not_there():
    found = compiled("v5e:2x2", ("identity", "identity", {"train.batch_size": 8}))["identity"]
    assert found["fits"] and found["batch"] == 8 and found["flops"] > 0
    # Gradients of kernels, in which a TPU computes with bfloat16, are summed up as such.
    reduced = found["collectives"]["all-reduce"]["bytes"]
    assert 2 < reduced / found["parameters"] < 4
    assert "identity on 4 x v5e" in found["report"] and "estimate" not in found["report"]

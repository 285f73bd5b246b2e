"""Compiling ahead: the search, what is assumed of data and networks, and the numbers told."""

import importlib.util
import json
import subprocess
import sys
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest
from places import ROOT

from data_pipelines.loading import shapes
from swaptalk_jax import errors, stages
from swaptalk_jax.costs import causes, chips, count
from swaptalk_jax.models.blocks import Upsample
from swaptalk_jax.planning import ahead, kept, search, targets
from swaptalk_jax.planning.abstract import PEOPLE, Abstract

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
    return importlib.import_module(f"swaptalk_jax.configs.{name}").get_config(size)


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

    found = search.largest(attempt, first, 16 * GIB)
    assert found == search.rounded(most)
    assert tried[found] and not tried[search.rounded(found + 1, up=True)]
    assert len(tried) <= 10


def test_where_nothing_fits_the_search_says_so():
    tried = []

    def attempt(n):
        tried.append(n)
        return SimpleNamespace(fits=False, used=float("inf"))

    assert search.largest(attempt, 4, 16 * GIB) == 0
    assert tried == [4, 2, 1]


def test_batches_that_are_tried_have_three_binary_digits():
    steps = [1]
    while steps[-1] < 32:
        steps.append(search.rounded(steps[-1] + 1, up=True))
    assert steps == [1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32]
    assert [search.rounded(n) for n in steps] == steps
    assert search.rounded(31) == 28


REFUSALS = {
    "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries "
    "(97.97G) exceeds available HBM (15.75G).": 97.97 * GIB,  # libtpu 0.0.42
    "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 17.50G of 15.75G hbm.": 17.5
    * GIB,
    "RESOURCE_EXHAUSTED: Allocation failed.": float("inf"),
    "INTERNAL: a bug": None,
}


@pytest.mark.parametrize("message", REFUSALS)
def test_a_refusal_tells_what_was_wanted_and_other_errors_stay_errors(message):
    assert ahead.wanted(message) == REFUSALS[message]


def test_what_ends_a_compilation_is_told():
    config, goal = get_config("expert"), targets.target("gpu:h100x2")
    config.mesh = {"data": 3}
    with pytest.raises(ahead.CompileError, match="does not fit 2 devices"):
        ahead.outcome(config, {}, 32, goal, 6)


def test_estimates_leave_out_what_only_cpus_compute_so(monkeypatch):
    """An enlarged image is one convolution on a GPU, and four smaller ones on a CPU."""

    def convolutions():
        x = jnp.zeros((1, 4, 4, 8))
        return str(jax.make_jaxpr(Upsample(8).init)(jax.random.key(0), x)).count("_dilated[")

    assert convolutions() == 5  # one of both, as long as nobody knows for what device
    monkeypatch.setattr(jax.lax, "platform_dependent", ahead.not_of_a_cpu)
    assert convolutions() == 1


BUFFERS = """BufferAssignment:
allocation 0: size 512, thread-local:
allocation 1: size 4096, parameter 19, shape |f32[3,3,16,16]| at ShapeIndex {}, maybe-live-out:
 value: <12 copy.1{0} @0> (size=9999,offset=0): f32[1]
allocation 4: size 49152, parameter 103, shape |u8[4,32,32,3]| at ShapeIndex {}:
allocation 56: size 1024, maybe-live-out:
allocation 107: size 512, output shape is |(s32[], f32[3])|, maybe-live-out:
allocation 108: size 8, constant:
allocation 572: size 6144, color 6, preallocated-temp:
allocation 574: size 2982400, preallocated-temp:
allocation 575: size 8917504, color 1, preallocated-temp:
"""


def test_buffers_of_main_memory_are_read_from_xlas_text():
    found = ahead.buffers(BUFFERS)
    assert found.arguments == 4096 + 49152 and found.aliased == 4096
    assert found.outputs == 4096 + 1024 + 512 and found.temporaries == 2982400 + 8
    assert found.total == 4096 + 49152 + 1024 + 512 + 2982400 + 8


def test_unknown_machines_are_refused(monkeypatch):
    for topology in ("gpu:h999x8", "v5e:16by16", "v9:2x2", "v5e", "gpu:v5ex8"):
        with pytest.raises(errors.RunError, match=rf"{topology}: wanted .* v4, v5e.* a100"):
            targets.target(topology)
    monkeypatch.setattr(targets.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(errors.RunError, match=r"pip install 'jax\[tpu\]'"):
        targets.target("v5e:2x2")


def test_outcomes_are_kept_by_what_they_depend_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "a" / "known.jsonl"
    config, goal = get_config("expert"), targets.target("gpu:h100x8")
    job = (config, {"vqgan": get_config("vqgan")}, 32, goal, 8, False)
    refused, made = (
        ahead.Outcome(None, float("inf")),
        count.Costs(
            3.0,
            4.0,
            count.Memory(1, 2, 3, 4, 0),
            {"all-reduce": count.Collective(1, 2.0)},
            0,
            ("x",),
        ),
    )
    outcome = ahead.Outcome(made, 5.0, {"swap: norms": causes.Cause(0.0, 4.0, 0.5, 2)})
    known = kept.Outcomes(path)
    assert known.get(job) is None and known.put(job, outcome) is outcome
    larger = (*job[:4], 16, False)
    known.put(larger, refused)
    path.write_text(path.read_text() + '{"key": "cut sho')
    again = kept.Outcomes(path)
    assert again.get(job) == outcome == known.get(job) and again.get(larger) == refused
    assert kept.Outcomes(None).get(job) is None
    people = tmp_path / config.data.root / PEOPLE  # a set of so many people has come
    people.parent.mkdir(parents=True)
    people.write_text("{}")
    assert again.get(job) is None
    people.unlink()
    assert again.get(job) == outcome
    config.train.accumulate = 2
    assert again.get(job) is None


@pytest.mark.parametrize("name", stages.registered())
def test_every_stage_is_described_without_data_or_networks(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # nothing of an earlier run is here
    config = get_config(name, "paper")
    config.precision = "bfloat16"
    made = Abstract(config, lambda n: get_config(n, "paper"), 512, identities=7)
    assert not list(tmp_path.iterdir())
    sizes = {k: sum(x.size for x in jax.tree.leaves(v)) / 1e6 for k, v in made.params.items()}
    told = " ".join(importlib.import_module(f"swaptalk_jax.configs.{name}").__doc__.split())
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
from swaptalk_jax.planning import kept
from swaptalk_jax.planning.abstract import Abstract
jax.config.update("jax_platforms", "cpu")
spec = importlib.util.spec_from_file_location("plan", "launch/plan.py")
plan = sys.modules["plan"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(plan)
planners, names, goal = [], [], plan.target(sys.argv[1])
for name, stage, change in json.loads(sys.argv[2]):
    config = plan.get_config(stage, "micro")
    config.root = config.workdir = config.data.root = "/nowhere"
    code = change.pop("code", False)
    config.update_from_flattened_dict(change)
    names.append(name)
    planners.append(plan.Planner(config, goal, kept.Outcomes(None), code=code))
made = {}
for name, (planner, found) in zip(names, plan.work(planners, False, 2), strict=True):
    params = Abstract(planner.config, planner.upstream.__getitem__, 32).params
    made[name] = dataclasses.asdict(found.costs) | {
        "batch": found.batch, "fits": found.fits, "total": found.used,
        "parameters": sum(x.size for x in jax.tree.leaves(params)),
        "bound": dataclasses.asdict(found.bound), "report": plan.report(found, True),
        "table": plan.table([found]),
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
    assert found["batch"] == 12
    assert found["bound"]["compute"] == found["flops"] / chips.find("h100").peak_flops
    # The state, that Adam trebles, goes where it came from.
    assert found["memory"]["aliased"] > found["parameters"] * 4 * 2


def test_a_cut_state_takes_an_eighth_of_the_memory(plans):
    assert plans["cut"]["memory"]["arguments"] < 0.5 * plans["whole"]["memory"]["arguments"]
    assert "all-gather" in plans["cut"]["collectives"]


def test_microbatches_cost_together_what_the_batch_costs(plans):
    assert plans["parts"]["flops"] == pytest.approx(plans["whole"]["flops"], rel=0.02)
    assert plans["parts"]["endless"] == 0


def test_report_and_table_say_that_it_is_an_estimate(plans):
    assert "expert on 8 x h100, batch 12 (2 a device)" in plans["whole"]["report"]
    assert "(estimate)" in plans["whole"]["report"] and "examples/s" in plans["whole"]["report"]
    assert "kernels in turn" in plans["whole"]["report"]
    assert "LipExpert: products" in plans["whole"]["report"]
    assert "h100 (estimate), remat off" in plans["whole"]["table"]


def test_the_table_has_a_row_a_stage_and_a_column_a_machine():
    def made(stage, topology, remat, batch, seconds):
        work = count.Costs(seconds * chips.find("v5e").peak_flops, 0.0, None, {})
        return plan.Plan(stage, targets.Target(*topology), remat, batch, 1.0, work, {}, 60.0)

    v5e, gpu = ("v5e:2x2", chips.find("v5e"), 4), ("gpu:h100x2", chips.find("h100"), 2, True)
    plans = [
        made("swap", v5e, True, 64, 0.5),
        made("swap", v5e, False, 12, 0.25),
        made("sync", v5e, True, 8000, 0.123),
        made("sync", gpu, True, 8, 1.0),
    ]
    assert plan.table(plans).splitlines() == [
        "| stage | v5e, remat on | v5e, remat off | h100 (estimate), remat on |",
        "| --- | --- | --- | --- |",
        "| swap | 16: 32/s, compute | 3: 12/s, compute | none |",
        "| sync | 2,000: 16,300/s, compute | none | 4: 20.1/s, compute |",
    ]


@pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="no libtpu: pip install 'jax[tpu]'"
)
def test_libtpu_compiles_for_a_pod_slice_that_is_not_there():
    change = {"train.batch_size": 8}
    plans = compiled(
        "v5e:2x2", ("quick", "identity", change), ("whole", "identity", change | {"code": True})
    )
    quick, whole = plans["quick"], plans["whole"]
    assert quick["fits"] and quick["batch"] == 8 and quick["flops"] > 0
    # Gradients of kernels, in which a TPU computes with bfloat16, are summed up as such.
    reduced = quick["collectives"]["all-reduce"]["bytes"]
    assert 2 < reduced / quick["parameters"] < 4
    assert "identity on 4 x v5e" in quick["report"] and "estimate" not in quick["report"]
    # What is read before there is machine code is what the compiler says when it is done.
    assert quick["memory"]["code"] == 0 < whole["memory"]["code"]
    for key in ("flops", "bytes", "collectives", "bound"):
        assert quick[key] == whole[key]
    for key in ("arguments", "aliased"):
        assert quick["memory"][key] == pytest.approx(whole["memory"][key], rel=0.01)

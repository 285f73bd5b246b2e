"""Costs of compiled programs against theory, on 8 simulated devices (a process of their own)."""

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest
from places import ROOT

from swaptalk_jax.costs import chips, roofline
from swaptalk_jax.costs.count import Collective, Costs, Memory, costs_of, costs_of_text

N, ROWS, WIDTH = 8, 64, 128  # devices; a global array [64, 128] of float32
BYTES = ROWS * WIDTH * 4
PROGRAMS = """
import dataclasses, json
import jax, jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
from swaptalk_jax.costs import count

mesh = jax.make_mesh((8,), ("data",), (AxisType.Auto,))
split, whole = NamedSharding(mesh, P("data")), NamedSharding(mesh, P())
def struct(shape, sharding, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)
def mapped(f, i, o):
    return jax.jit(jax.shard_map(f, mesh=mesh, in_specs=i, out_specs=o, check_vma=False))
x, w = struct((64, 128), split), struct((128, 32), whole)
ring = [(i, (i + 1) % 8) for i in range(8)]
def loss(w, x):
    return jnp.sum(jnp.tanh(x @ w) ** 2)
def microbatches(w, x):
    def one(total, part):
        grads = jax.grad(loss)(w, part)
        return total + grads, None
    return jax.lax.scan(one, jnp.zeros_like(w), x)[0]
def loop_of_sums(x):
    return jax.lax.fori_loop(0, 5, lambda i, x: jax.lax.psum(x, "data") / 8, x)
PROGRAMS = {
    "psum": (mapped(lambda x: jax.lax.psum(x, "data"), P("data"), P()), x),
    "all_gather": (mapped(lambda x: jax.lax.all_gather(x, "data", tiled=True), P("data"), P()), x),
    "psum_scatter": (
        mapped(lambda x: jax.lax.psum_scatter(x, "data", tiled=True), P(), P("data")),
        struct((64, 128), whole),
    ),
    "all_to_all": (
        mapped(lambda x: jax.lax.all_to_all(x, "data", 1, 0, tiled=True), P("data"), P("data")), x
    ),
    "ppermute": (mapped(lambda x: jax.lax.ppermute(x, "data", ring), P("data"), P("data")), x),
    "two_sums": (
        mapped(lambda x, y: jax.lax.psum((x, y), "data"), (P("data"), P("data")), (P(), P())),
        x, struct((8, 16), split),
    ),
    "loop_of_sums": (mapped(loop_of_sums, P("data"), P("data")), x),
    "gradient": (jax.jit(jax.grad(loss), out_shardings=whole), w, x),
    "fsdp": (jax.jit(jax.grad(loss), out_shardings=split), struct((128, 32), split), x),
    "microbatches": (
        jax.jit(microbatches, out_shardings=whole), w,
        struct((4, 64, 128), NamedSharding(mesh, P(None, "data"))),
    ),
    "donated": (jax.jit(lambda x: x + 1, donate_argnums=0, out_shardings=split), x),
}
made = {}
for name, (f, *args) in PROGRAMS.items():
    compiled = f.lower(*args).compile()
    made[name] = dataclasses.asdict(count.costs_of(compiled))
    made[name]["xla_flops"] = compiled.cost_analysis().get("flops", 0)
print(json.dumps(made))
"""


@pytest.fixture(scope="module")
def programs():
    """{program: Costs as dicts} of the programs above."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAMS], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    "program, kind, count, size",
    [
        ("psum", "all-reduce", 1, BYTES / N),
        ("all_gather", "all-gather", 1, BYTES),
        ("psum_scatter", "reduce-scatter", 1, BYTES),
        ("all_to_all", "all-to-all", 1, BYTES / N),
        ("ppermute", "collective-permute", 1, BYTES / N),
        ("loop_of_sums", "all-reduce", 5, 5 * BYTES / N),
        ("gradient", "all-reduce", 1, 128 * 32 * 4),  # of the weights' gradient
        ("microbatches", "all-reduce", None, None),
    ],
)
def test_collectives_are_those_of_the_theory(programs, program, kind, count, size):
    found = programs[program]["collectives"]
    assert list(found) == [kind]
    if count:
        assert found[kind] == {"count": count, "bytes": size}
    else:  # XLA may sum up before or after it reduces: 1 payload, or 1 a microbatch
        assert found[kind]["bytes"] in (128 * 32 * 4, 4 * 128 * 32 * 4)


def test_sums_that_were_made_one_keep_their_bytes(programs):
    found = programs["two_sums"]["collectives"]["all-reduce"]
    assert found["bytes"] == BYTES / N + 8 * 16 * 4 / N and found["count"] in (1, 2)


def test_sharded_weights_are_gathered_and_their_gradient_is_reduced(programs):
    found = programs["fsdp"]["collectives"]
    assert found["all-gather"]["bytes"] >= 128 * 32 * 4
    assert sum(found.get(k, {"bytes": 0})["bytes"] for k in ("all-reduce", "reduce-scatter")) > 0


def test_flops_are_those_of_the_products_and_loops_count_as_often_as_they_run(programs):
    product = 2 * (ROWS / N) * 128 * 32
    assert programs["gradient"]["flops"] == 2 * product  # forward, and for the weights backward
    assert programs["microbatches"]["flops"] == 4 * 2 * product
    # XLA's own count: the same with the cheap operations, but a loop's body once.
    assert product < programs["gradient"]["xla_flops"] / 2 < 1.2 * product
    assert programs["microbatches"]["xla_flops"] < 0.5 * programs["microbatches"]["flops"]
    assert all(p["endless"] == 0 and not p["uncounted"] for p in programs.values())


def test_memory_and_traffic(programs):
    p = programs["donated"]
    assert p["memory"]["arguments"] == p["memory"]["aliased"] == BYTES / N
    assert Memory(**p["memory"]).total == p["memory"]["arguments"]
    assert p["bytes"] == 2 * BYTES / N  # read once, written once


def convolution(x, k, stride=1, groups=1, transposed=1, padding="SAME"):
    return jax.lax.conv_general_dilated(
        x,
        k,
        (stride, stride),
        padding,
        lhs_dilation=(transposed, transposed),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


@pytest.mark.parametrize(
    "options, kernel",
    [
        ({}, (3, 3, 16, 8)),
        ({"stride": 2}, (3, 3, 16, 8)),
        ({"groups": 4}, (3, 3, 4, 8)),
        ({"transposed": 2, "padding": ((2, 1), (2, 1))}, (4, 4, 16, 8)),
        ({"padding": "VALID"}, (1, 1, 16, 8)),
    ],
)
def test_convolutions_and_their_gradients_cost_what_xla_says(options, kernel):
    x = jax.ShapeDtypeStruct((2, 12, 10, 16), jnp.float32)
    k = jax.ShapeDtypeStruct(kernel, jnp.float32)

    def loss(k, x):
        return jnp.sum(convolution(x, k, **options)) ** 2

    for f in (loss, jax.grad(loss, 0), jax.grad(loss, 1)):
        compiled = jax.jit(f).lower(k, x).compile()
        counted = costs_of(compiled).flops
        cheap = compiled.cost_analysis()["flops"] - counted  # sums, squares, broadcasts
        assert counted > 0 and 0 <= cheap < 8000


def test_of_branches_the_dearer_one_counts():
    w = jax.ShapeDtypeStruct((64, 64), jnp.float32)
    step = jax.ShapeDtypeStruct((), jnp.int32)

    def f(step, w):
        return jax.lax.cond(step > 3, lambda: w @ w @ w, lambda: w @ w)

    assert costs_of(jax.jit(f).lower(step, w).compile()).flops == 2 * 2 * 64**3


HLO = """HloModule m, is_scheduled=true

%fused (p0: bf16[128,1024], p1: bf16[1024,512]) -> bf16[128,512] {
  %p0 = bf16[128,1024]{1,0:T(8,128)(2,1)} parameter(0)
  %p1 = bf16[1024,512]{1,0:T(8,128)(2,1)S(1)} parameter(1)
  ROOT %convolution.1 = bf16[128,512]{1,0:T(8,128)(2,1)} convolution(%p0, %p1), dim_labels=bf_io->bf
}

%wrapped (p: f32[1024]) -> f32[128] {
  %p = f32[1024]{0} parameter(0)
  ROOT %reduce-scatter.9 = f32[128]{0} reduce-scatter(%p), replica_groups=[1,8]<=[8], dimensions={0}
}

ENTRY %main (a: bf16[128,1024], b: bf16[1024,64], c: f32[1024]) -> bf16[128,512] {
  %a = bf16[128,1024]{1,0:T(8,128)(2,1)} parameter(0)
  %b = bf16[1024,64]{1,0:T(8,128)(2,1)} parameter(1)
  %c = f32[1024]{0} parameter(2)
  %ags = (bf16[1024,64]{1,0}, bf16[1024,512]{1,0:T(8,128)(2,1)S(1)}) all-gather-start(%b), \
replica_groups=[1,8]<=[8], dimensions={1}
  %agd = bf16[1024,512]{1,0:T(8,128)(2,1)S(1)} all-gather-done(%ags)
  %rss = ((f32[1024]{0}), f32[128]{0}, u32[]) async-start(%c), calls=%wrapped
  %rsd = f32[128]{0} async-done(%rss), calls=%wrapped
  %ars = (f32[1024]{0}, /*index=1*/f32[]) all-reduce-start(%c, %rsd), replica_groups={{0,1}}
  %ard = (f32[1024]{0}, f32[]) all-reduce-done(%ars)
  %kernel = bf16[8,8]{1,0} custom-call(%a), custom_call_target="tpu_custom_call"
  %cudnn = (f32[2,5,5,4]{3,2,1,0}, u8[64]{0}) custom-call(%x, %k), window={size=3x3}, \
dim_labels=b01f_01io->b01f, custom_call_target="__cudnn$convForward"
  %x = f32[2,7,7,8]{3,2,1,0} constant({...})
  %k = f32[3,3,8,4]{3,2,1,0} constant({...})
  ROOT %fusion = bf16[128,512]{1,0:T(8,128)(2,1)} fusion(%a, %agd), kind=kOutput, calls=%fused
}
"""


def test_a_program_of_a_tpu_or_gpu_asynchronous_and_with_fast_memory():
    found = costs_of_text(HLO)
    assert found.collectives == {
        "all-gather": Collective(1, 1024 * 512 * 2),
        "reduce-scatter": Collective(1, 1024 * 4),
        "all-reduce": Collective(1, 1024 * 4 + 128 * 4),
    }
    assert found.flops == 2 * 128 * 1024 * 512 + 2 * (2 * 25 * 9 * 8 * 4)
    assert found.uncounted == ("tpu_custom_call",)


SLICES = """HloModule m

%sliced (p: bf16[64,16]) -> bf16[8,16] {
  %p = bf16[64,16]{1,0} parameter(0)
  ROOT %s = bf16[8,16]{1,0:S(1)} slice(%p), slice={[8:16], [0:16]}
}

ENTRY %main (a: bf16[64,16]) -> bf16[8,16] {
  %a = bf16[64,16]{1,0} parameter(0)
  %one = ((bf16[64,16]{1,0}), bf16[8,16]{1,0:S(1)}, s32[]) slice-start(%a), slice={[0:8], [0:16]}
  %first = bf16[8,16]{1,0:S(1)} slice-done(%one)
  %two = ((bf16[64,16]{1,0}), bf16[8,16]{1,0:S(1)}, s32[]) async-start(%a), calls=%sliced
  %second = bf16[8,16]{1,0:S(1)} async-done(%two)
  %third = bf16[8,16]{1,0:S(1)} slice(%first), slice={[0:8], [0:16]}
  ROOT %fourth = bf16[8,16]{1,0} slice(%second), slice={[0:8], [0:16]}
}
"""


def test_of_what_is_sliced_only_the_slice_moves_and_fast_memory_is_free():
    # Twice from main into fast memory, in either of XLA's spellings; then inside it; then back.
    assert costs_of_text(SLICES).bytes == 3 * 8 * 16 * 2


TPU_LOOP = """HloModule m

%body (p: (s32[], f32[64,64])) -> (s32[], f32[64,64]) {
  %one = s32[]{:T(128)} constant(1)
  %p = (s32[]{:T(128)}, f32[64,64]{1,0:T(8,128)S(1)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%p), index=0
  %copy.1 = s32[]{:T(128)S(6)} copy(%i)
  %next = s32[]{:T(128)} add(%copy.1, %one)
  %again = s32[]{:T(128)} add(%one, %next)
  %x = f32[64,64]{1,0:T(8,128)S(1)} get-tuple-element(%p), index=1
  %y = f32[64,64]{1,0:T(8,128)S(1)} convolution(%x, %x), dim_labels=bf_io->bf
  ROOT %out = (s32[]{:T(128)}, f32[64,64]{1,0:T(8,128)S(1)}) tuple(%again, %y)
}

%condition (p: (s32[], f32[64,64])) -> pred[] {
  %seven = s32[]{:T(128)} constant(7)
  %p = (s32[]{:T(128)}, f32[64,64]{1,0:T(8,128)S(1)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%p), index=0
  ROOT %lt = pred[]{:T(512)} compare(%i, %seven), direction=LT
}

ENTRY %main (w: f32[64,64]) -> (s32[], f32[64,64]) {
  %w = f32[64,64]{1,0:T(8,128)S(1)} parameter(0)
  %zero = s32[]{:T(128)} constant(START)
  %start = s32[]{:T(128)} copy(%zero)
  %tuple = (s32[]{:T(128)}, f32[64,64]{1,0:T(8,128)S(1)}) tuple(%start, %w)
  ROOT %while = (s32[]{:T(128)}, f32[64,64]{1,0:T(8,128)S(1)}) while(%tuple), \
condition=%condition, body=%body
}
"""


@pytest.mark.parametrize("start, trips", [("0", 4), ("1", 3), ("9", 0)])
def test_a_loop_whose_length_xla_did_not_note_is_read_from_its_counter(start, trips):
    found = costs_of_text(TPU_LOOP.replace("START", start))
    assert (found.flops, found.endless) == (trips * 2 * 64**3, 0)


def test_a_loop_of_unknown_length_counts_once_and_is_told():
    found = costs_of_text(TPU_LOOP.replace("constant(START)", "parameter(1)"))
    assert (found.flops, found.endless) == (2 * 64**3, 1)


SPREAD = """HloModule m

%first (p: f32[8]) -> f32[64] {
  %p = f32[8]{0} parameter(0)
  %all-gather.1 = f32[64]{0} all-gather(%p), channel_id=3, frontend_attributes={chain_id="0"}
  ROOT %s = f32[64]{0} custom-call(%all-gather.1), custom_call_target="AsyncCollectiveStart"
}

%later (p: f32[8], q: f32[64]) -> f32[64] {
  %p = f32[8]{0} parameter(0)
  %q = f32[64]{0} parameter(1)
  %all-gather.2 = f32[64]{0} all-gather(%p), channel_id=3, frontend_attributes={chain_id="0"}
  ROOT %d = f32[64]{0} custom-call(%q, %all-gather.2), custom_call_target="AsyncCollectiveDone"
}

ENTRY %main (a: f32[8]) -> f32[64] {
  %a = f32[8]{0} parameter(0)
  %start = f32[64]{0} fusion(%a), kind=kCustom, calls=%first
  ROOT %done = f32[64]{0} fusion(%a, %start), kind=kCustom, calls=%later
}
"""


def test_a_collective_that_goes_on_across_fusions_counts_once():
    found = costs_of_text(SPREAD)
    assert found.collectives == {"all-gather": Collective(1, 64 * 4)}
    assert not found.uncounted


def test_roofline_takes_the_slowest_part():
    chip = chips.find("TPU v5 lite")
    work = Costs(197e12, 819e9 / 4, None, {"all-reduce": Collective(3, 200e9)})
    bound = roofline.roofline(work, chip, 8)
    assert (bound.compute, bound.memory, bound.interconnect) == (1.0, 0.25, 2 * 7 / 8)
    assert bound.seconds == 1.75 and bound.by == "interconnect"
    assert roofline.roofline(work, chip, 1).interconnect == 0


def test_chips_are_found_by_what_jax_calls_them():
    assert chips.find("TPU v5 lite").name == "v5e" and chips.find("TPU v5").name == "v5p"
    assert chips.find("cpu") is None
    kinds = [kind for chip in chips.CHIPS for kind in (chip.name, *chip.kinds)]
    assert len(kinds) == len(set(kinds))
    for chip in chips.CHIPS:  # a slip of a power of ten would show
        assert 1e14 < chip.peak_flops < 1e15 and 14e9 < chip.hbm_bytes < 160e9
        assert 2e11 < chip.hbm_bandwidth < 1e13 and 3e10 < chip.link_bandwidth < 1e12

"""A program's costs by cause: they sum up to the whole, and names tell the cause."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
import pytest

from swaptalk_jax.costs import causes, chips, count, hlo
from swaptalk_jax.models.attention import attention
from swaptalk_jax.models.blocks import Norm

CHIP = chips.find("v5e")


class Network(nn.Module):
    """A convolution, a norm and an attention, all computed again if `remat`."""

    remat: bool

    @nn.compact
    def __call__(self, x):
        def block(module, x):
            x = nn.Conv(8, (3, 3), name="conv")(x)
            x = nn.silu(Norm(name="norm")(x))
            tokens = x.reshape(len(x), -1, 8)
            return x + attention(2, name="attention")(tokens).reshape(x.shape)

        return (nn.remat(block) if self.remat else block)(self, x)


@pytest.fixture(scope="module", params=[False, True])
def module(request):
    """(whether remat is on, hlo.Module) of a training step."""
    network, tx = Network(request.param), optax.adam(1e-3)
    x = jnp.zeros((2, 8, 8, 8))
    params = network.init(jax.random.key(0), x)

    def step(params, state, x):
        grads = jax.grad(lambda p: jnp.sum(jnp.sin(network.apply(p, x)) ** 2))(params)
        updates, state = tx.update(grads, state)
        return optax.apply_updates(params, updates), state

    compiled = jax.jit(step).lower(params, tx.init(params), x).compile()
    return request.param, hlo.parse(compiled.as_text())


def test_causes_sum_up_to_the_costs(module):
    _, program = module
    found, whole = causes.by_cause(program, CHIP), count.Count(program).all()
    assert sum(c.flops for c in found.values()) == whole.flops > 0
    assert sum(c.bytes for c in found.values()) == whole.bytes
    least = max(whole.flops / CHIP.peak_flops, whole.bytes / CHIP.hbm_bandwidth)
    assert causes.bound(found) >= least


def test_names_tell_the_cause(module):
    again, program = module
    found = causes.by_cause(program, CHIP)
    for name in ("attention", "norms", "products"):
        assert found[f"Network: {name}"].bytes > 0
    assert found["losses, optimizer: elementwise"].bytes > 0
    assert found["Network: attention"].flops >= 2 * 2 * 2 * 64 * 64 * 8  # two products a token pair
    assert (f"Network: {causes.AGAIN}" in found) == again
    used = sum(c.flops for c in found.values()) / CHIP.peak_flops / causes.bound(found)
    assert causes.share(found, CHIP) <= used
    if not again:
        assert causes.share(found, CHIP) == pytest.approx(used)


@pytest.mark.parametrize(
    ("name", "opcode", "flops", "wanted"),
    [
        ("jit(step)/jvp(VQGAN.decode)/decoder/norm1/norm/mul", "fusion", 0, "VQGAN.decode: norms"),
        ("jit(step)/transpose(jvp(A))/block0/attention/bhts/dot", "dot", 9, "A: attention"),
        ("jit(step)/jvp(A)/block0/attention/query/dot_general", "dot", 9, "A: products"),
        ("jit(step)/jvp(A)/middle_attention/norm/mul", "fusion", 0, "A: norms"),
        ("jit(step)/jvp(A)/conv1/transpose", "copy", 0, "A: copies"),
        ("jit(step)/jvp(A)/checkpoint/rematted_computation/n/dot", "dot", 9, "A: computed again"),
        ("jit(step)/IResNet/conv1/conv", "convolution", 9, "IResNet: products"),
        ("jit(step)/jvp()/mul", "fusion", 0, "losses, optimizer: elementwise"),
        ("", "copy", 0, "losses, optimizer: copies"),
    ],
)
def test_the_cause_of_a_kernel(name, opcode, flops, wanted):
    assert causes.cause(name, opcode, flops) == wanted


LOOP = """HloModule loop
%body (p.1: (s32[], f32[64,64])) -> (s32[], f32[64,64]) {
  %p.1 = (s32[], f32[64,64]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%p.1), index=0
  %x = f32[64,64]{1,0} get-tuple-element(%p.1), index=1
  %y = f32[64,64]{1,0} dot(%x, %x), lhs_contracting_dims={1}, rhs_contracting_dims={0}, \
metadata={op_name="jit(f)/jvp(A)/while/body/layer/dot_general"}
  ROOT %t = (s32[], f32[64,64]{1,0}) tuple(%i, %y)
}
%cond (p.2: (s32[], f32[64,64])) -> pred[] {
  %p.2 = (s32[], f32[64,64]{1,0}) parameter(0)
  ROOT %c = pred[] constant(true)
}
ENTRY %main (a: f32[64,64]) -> f32[64,64] {
  %a = f32[64,64]{1,0} parameter(0)
  %zero = s32[] constant(0)
  %start = (f32[64,64]{1,0:S(1)}, f32[64,64]{1,0}, u32[]) copy-start(%a)
  %done = f32[64,64]{1,0:S(1)} copy-done(%start)
  %s = (s32[], f32[64,64]{1,0}) tuple(%zero, %done)
  %w = (s32[], f32[64,64]{1,0}) while(%s), condition=%cond, body=%body, \
backend_config={"known_trip_count":{"n":"3"}}
  ROOT %r = f32[64,64]{1,0} get-tuple-element(%w), index=1
}
"""


def test_loops_count_as_often_as_they_run_and_fetches_take_no_time():
    found = causes.by_cause(hlo.parse(LOOP), CHIP)
    product = found["A: products"]
    assert product.flops == 3 * 2 * 64**3 and product.kernels == 3
    assert product.seconds == pytest.approx(product.bytes / CHIP.hbm_bandwidth)
    assert found[causes.ASYNCHRONOUS].bytes > 0 == found[causes.ASYNCHRONOUS].seconds
    assert [line.split(":")[0] for line in causes.table(found)[1:]] == ["A", "any"]

"""The size for live use: its stages have steps, and a frame costs what two cores can do in time."""

import importlib

import jax
import jax.numpy as jnp
import pytest

from swaptalk_jax.configs import common, swap, sync, vqgan
from swaptalk_jax.models import registry
from swaptalk_jax.models.generator import Generator
from swaptalk_jax.planning.abstract import Abstract
from swaptalk_jax.training.step import initial

SIDE, FRAME_BUDGET = common.IMAGE_SIZE["live"], 1.4e9  # FLOPs: 40 ms at a modest 35 GFLOP/s


def config_of(name):
    return importlib.import_module(f"swaptalk_jax.configs.{name}").get_config("live")


@pytest.mark.parametrize("name", ["identity", "vqgan", "expert", "swap", "sync"])
def test_each_stage_has_a_step_on_its_own_upstream(name, tmp_path):
    c = config_of(name)
    c.root = c.pretrained = str(tmp_path)  # where nothing stands
    run = Abstract(c, config_of, SIDE, identities=8)
    state = jax.eval_shape(lambda key, batch: initial(run.stage, run.tx, c, key, batch),
                           run.key, run.batch(2))  # fmt: skip
    grads, (metrics, _) = jax.eval_shape(
        jax.grad(run.stage.loss, has_aux=True), state.params, run.frozen, run.batch(2), run.key, 0
    )
    assert jax.tree.structure(grads) == jax.tree.structure(state.params)
    assert run.stage.learns in metrics


def flops(function, *shapes):
    """Of one call, as XLA counts them before it optimises."""
    return jax.jit(function).lower(*shapes).cost_analysis()["flops"]


def test_a_frame_costs_what_two_cores_can_do_in_40_ms():
    built = {
        name: registry.build(name, fields)
        for module in (vqgan, swap, sync)
        for name, fields in module.get_config("live").model.items()
    }
    grid = (1, *built["swap"].grid, built["swap"].embed_dim)
    image, z = (jnp.zeros(shape) for shape in ((1, SIDE, SIDE, 3), grid))
    sound, key = jnp.zeros((1, 10, 160)), jax.random.key(0)
    generator, total = Generator(built["warp"], built["unet"]), 0.0
    params = jax.eval_shape(built["vqgan"].init, key, image)
    for method, x in (("encode", image), ("nearest", z), ("decode", z)):
        model = built["vqgan"]
        total += flops(lambda p, x, m=method: model.apply(p, x, method=m), params, x)  # noqa: B023
    params = jax.eval_shape(built["swap"].init, key, z, z)
    total += flops(built["swap"].apply, params, z, z)
    params = jax.eval_shape(generator.init, key, z, sound)
    total += flops(generator.apply, params, z, z, sound)
    assert 0.1e9 < total < FRAME_BUDGET

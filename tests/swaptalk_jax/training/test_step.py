"""The step's arithmetic: microbatches and running averages."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swaptalk_jax.models.blocks import ResidualBlock, remat
from swaptalk_jax.training import sharding, step


def split(size, parts):
    return sharding.Split(size, sharding.make_mesh({"data": -1}), parts)


def gradients(weight):
    """(batch, rng) -> ((metrics, gradient) of a mean over examples, aux)."""

    def of(batch, rng):
        del rng
        error = batch["x"] @ weight - batch["y"]
        found = {"loss": jnp.mean(jnp.square(error))}, batch["x"].T @ error / len(error)
        return found, {"seen": batch["y"], "pairs": batch["x"][:, :2]}

    return of


@pytest.mark.parametrize("parts", [2, 3, 5, 8, 12, 20])
def test_microbatches_give_the_gradient_of_the_batch_and_aux_in_its_order(parts):
    rng = np.random.default_rng(0)
    batch = {"x": rng.normal(size=(12, 3)), "y": rng.normal(size=12)}
    batch = {k: jnp.asarray(v, jnp.float32) for k, v in batch.items()}
    padding = split(12, parts).padded - 12
    padded = {k: jnp.concatenate([v, jnp.repeat(v[-1:], padding, 0)]) for k, v in batch.items()}
    of = gradients(jnp.array([1.0, -2.0, 0.5]))
    key = jax.random.key(0)
    (metrics, whole), aux = step.accumulated(of, batch, key, split(12, 1))
    (metrics_of_parts, found), aux_of_parts = jax.jit(
        lambda batch: step.accumulated(of, batch, key, split(12, parts))
    )(padded)
    np.testing.assert_allclose(found, whole, rtol=1e-5)
    np.testing.assert_allclose(metrics_of_parts["loss"], metrics["loss"], rtol=1e-5)
    for name in ("seen", "pairs"):
        np.testing.assert_array_equal(aux_of_parts[name], aux[name])


def test_each_microbatch_has_its_own_randomness():
    def of(batch, rng):
        return jax.random.normal(rng), {"drawn": jnp.full(len(batch), jax.random.normal(rng))}

    mean, aux = step.accumulated(of, jnp.zeros(6), jax.random.key(1), split(6, 3))
    drawn = np.asarray(aux["drawn"])
    assert len(set(drawn.tolist())) == 3
    np.testing.assert_allclose(mean, drawn.mean(), rtol=1e-6)


def test_averages_forget_their_start_and_then_follow_slowly():
    params, ema = {"w": jnp.ones(2)}, {"w": jnp.zeros(2)}
    for n in range(300):
        ema = step.averaged(types.SimpleNamespace(step=n, ema=ema), params, 0.99)
        if n == 0:
            np.testing.assert_allclose(ema["w"], 0.9)  # 1 - 1/10, not 1 - 0.99
    np.testing.assert_allclose(ema["w"], 1.0, atol=1e-3)
    late = step.averaged(types.SimpleNamespace(step=10_000, ema=ema), {"w": jnp.zeros(2)}, 0.99)
    np.testing.assert_allclose(late["w"], 0.99 * ema["w"], rtol=1e-6)


@pytest.mark.parametrize("again", [False, True])
def test_fences_stand_before_norms_and_change_nothing_else(again):
    block = remat(ResidualBlock, again)(8, name="block")
    x = jax.random.normal(jax.random.key(0), (2, 4, 4, 8))
    params = block.init(jax.random.key(1), x)

    def loss(params, fenced):
        if not fenced:
            return jnp.sum(block.apply(params, x) ** 2)
        with step.fences():
            return jnp.sum(block.apply(params, x) ** 2)

    for fenced in (False, True):
        text = str(jax.make_jaxpr(lambda p: loss(p, fenced))(params))  # noqa: B023
        assert text.count("optimization_barrier") == 2 * fenced
    plain, same = (jax.value_and_grad(loss)(params, fenced) for fenced in (False, True))
    jax.tree.map(np.testing.assert_array_equal, plain, same)


@pytest.mark.parametrize(
    "batch, platform, wanted", [(28, "tpu", True), (32, "tpu", False), (28, "gpu", False)]
)
def test_norms_are_fenced_for_few_images_on_each_tpu(batch, platform, wanted):
    device = types.SimpleNamespace(platform=platform)
    mesh = types.SimpleNamespace(shape={"data": 4}, devices=np.array([device] * 4))
    assert step.few_a_device(sharding.Split(batch, mesh)) is wanted
    assert step.few_a_device(sharding.Split(2 * batch, mesh, 2)) is wanted

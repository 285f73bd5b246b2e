"""Our side of each comparison: (settle, work, facts) of shapes that the peer is given too.

Networks have random weights; a step is training/step.py's, with a plain objective that both sides
share. settle() makes ready for a fair turn, work() is what is timed. A network's settle() is the
work itself. While the other side has its turn, a virtual machine may take idle memory back. To get
it again costs seconds. A training that runs on does not pay them.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from data_pipelines.loading import loader, views
from swaptalk_jax import backend
from swaptalk_jax.configs import common
from swaptalk_jax.models import registry
from swaptalk_jax.models.generator import Generator
from swaptalk_jax.models.latent import to_float
from swaptalk_jax.stages import Stage, losses
from swaptalk_jax.training import optim, sharding
from swaptalk_jax.training.step import TrainState, make_step

SPREAD = 0.02  # of random weights: results stay finite, and no number is denormal


class Objective(Stage):
    """A stage of one network, whose loss needs no other network. params: network.

    network: a Flax module; objective: (its result, *its inputs) -> scalar. A batch is its inputs.
    """

    def __init__(self, network, objective):
        self.network, self.objective = network, objective

    def loss(self, params, frozen, batch, rng, step):
        """The objective, without metrics."""
        del frozen, rng, step
        result = self.network.apply({"params": params["network"]}, *batch)
        return self.objective(result, *batch), ({}, {})


def vqgan(fields):
    """(network, images, objective): L1 and the codebooks' loss, without critic and VGG16."""
    size, count = fields["size"], fields["count"]
    image = _drawn((count, size, size, 3)).clip(-1, 1)

    def objective(result, image):
        picture, z, z_q, _ = result
        return losses.reconstruction(image, picture) + sum(losses.codebook(z, z_q, 0.25))

    return registry.build("vqgan", fields["model"]), (image,), objective


def unet(fields):
    """(network, lower halves and sound, objective): a mean squared error."""
    count, dim = fields["count"], fields["model"]["embed_dim"]
    lips = _drawn((count, *fields["grid"], dim))
    sound = _drawn((count, fields["tokens"], fields["audio_width"]))

    def objective(result, lips, sound):
        del sound
        return jnp.mean(jnp.square(result - lips))

    return registry.build("unet", fields["model"]), (lips, sound), objective


def forward(made, fields):
    """(settle, work, facts) of a network's forward pass; made: `vqgan` or `unet`."""
    network, inputs, _ = made(fields)
    params = random_parameters(network, *inputs)
    run = backend.jit(lambda params, *inputs: network.apply({"params": params}, *inputs))
    inputs = jax.device_put(inputs)

    def work():
        return jax.block_until_ready(run(params, *inputs))

    return work, work, _facts(params)


def step(made, fields):
    """(settle, work, facts) of a training step with Adam; made: `vqgan` or `unet`."""
    network, inputs, objective = made(fields)
    params = {"network": random_parameters(network, *inputs)}
    groups = ConfigDict({"default": common.adam(lr=1e-4, b1=0.5, b2=0.9)})
    tx = optim.optimizer(groups, 1, fields["count"], params)
    state = TrainState(jnp.zeros((), jnp.int32), params, tx.init(params), {})
    split = sharding.Split(fields["count"], sharding.local_mesh())
    config = ConfigDict({"seed": 0, "train": {"ema": 0.0}})
    one = make_step(Objective(network, objective), tx, config, split)
    update, inputs = backend.jit(one, donate_argnums=0), jax.device_put(inputs)

    def work():
        nonlocal state
        state, metrics = update(state, {}, inputs)
        jax.block_until_ready((state, metrics))

    return work, work, _facts(params)


def chain(fields):
    """(settle, work, facts) of `count` frames: encode, swap, sync, decode, as infer does them."""
    model, size, count = fields["model"], fields["size"], fields["count"]
    nets = {name: registry.build(name, shapes) for name, shapes in model.items()}
    generator = Generator(nets["warp"], nets["unet"])
    image = np.zeros((count, size, size, 3), np.uint8)
    image[:] = np.random.default_rng(0).integers(0, 256, image.shape, np.uint8)
    grid = model["swap"]["grid"]
    z, sound = (
        _drawn((count, *grid, model["vqgan"]["embed_dim"])),
        _drawn((count, fields["tokens"], fields["audio_width"])),
    )
    half = z[:, : grid[0] // 2]
    params = {
        "vqgan": random_parameters(nets["vqgan"], to_float(image)),
        "swap": random_parameters(nets["swap"], z, z),
        "warp": random_parameters(nets["warp"], half, half, half),
        "unet": random_parameters(nets["unet"], half, sound),
    }

    def on_codes(params, z):
        codes = nets["vqgan"].apply({"params": params}, z, method="nearest")
        return nets["vqgan"].apply({"params": params}, codes, method="lookup")

    def frames(params, image, source, reference, sound):
        vqgan = {"params": params["vqgan"]}
        target = nets["vqgan"].apply(vqgan, to_float(image), method="encode")
        target = on_codes(params["vqgan"], target)
        swapped = nets["swap"].apply({"params": params["swap"]}, source, target)
        if fields["quantize"]:
            swapped = on_codes(params["vqgan"], swapped)
        spoken = generator.apply(params, swapped, reference, sound, fields["warp"])
        return nets["vqgan"].apply(vqgan, spoken, method="decode")

    run = backend.jit(frames)

    def work():
        return jax.block_until_ready(run(params, image, z, z, sound))

    return work, work, _facts(params)


def windows(fields):
    """(settle, work, facts) of batches of windows of codes, read as those of a large set."""
    kept, views.KEEP_BYTES = views.KEEP_BYTES, 0
    try:
        batches = loader.dataset(
            {"root": fields["records"]}, "train", "windows", fields["batch"], 0
        )
        next(batches)
    finally:
        views.KEEP_BYTES = kept

    def draw(count):
        for _ in range(count):
            next(batches)

    settle = functools.partial(draw, 2 * loader.PREFETCH)
    return settle, functools.partial(draw, fields["batches"]), {}


def random_parameters(network, *inputs):
    """Random parameters on the device: drawn, not initialised, which would be compiled first."""
    shapes = jax.eval_shape(network.init, jax.random.key(0), *inputs)["params"]
    rng = np.random.default_rng(0)

    def draw(x):
        return jax.device_put(SPREAD * rng.standard_normal(x.shape, np.float32))

    return jax.tree.map(draw, shapes)


def _drawn(shape):
    return np.random.default_rng(1).standard_normal(shape, np.float32)


def _facts(params):
    return {"parameters": sum(x.size for x in jax.tree.leaves(params))}

"""The configs: every size builds its networks, and the docstrings tell their true sizes."""

import dataclasses
import json
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest
from absl import flags
from flax.traverse_util import flatten_dict
from places import ROOT

from swaptalk_jax.configs import common, expert, identity, swap, sync, vqgan
from swaptalk_jax.models import registry
from swaptalk_jax.models.discriminator import PatchDiscriminator
from swaptalk_jax.models.expert import LipExpert
from swaptalk_jax.models.latent import factor
from swaptalk_jax.models.lip_unet import LipUNet
from swaptalk_jax.models.recogniser import Recogniser
from swaptalk_jax.models.swap import SwapTransformer
from swaptalk_jax.models.vqgan import VQGAN
from swaptalk_jax.models.warp import FaceWarp
from swaptalk_jax.pretrained import networks
from swaptalk_jax.stages import losses
from swaptalk_jax.training import agreement, optim, upstream

STAGES = (identity, vqgan, expert, swap, sync)
FREE = ("Apache-2.0", "BSD-2-Clause", "MIT")
IMAGE, WHOLE, LOWER, AUDIO = (1, 512, 512, 3), (1, 32, 32, 256), (1, 16, 32, 256), (1, 10, 768)
# network -> (module, config, shapes of its inputs and of its first output at the paper's size)
NETWORKS = {
    "recogniser": (Recogniser, identity, [IMAGE], (1, 512)),
    "vqgan": (VQGAN, vqgan, [IMAGE], IMAGE),
    "discriminator": (PatchDiscriminator, vqgan, [IMAGE], (1, 62, 62, 1)),
    "expert": (LipExpert, expert, [(1, 5, 16, 32, 256), AUDIO], (1, 512)),
    "swap": (SwapTransformer, swap, [WHOLE, WHOLE], WHOLE),
    "warp": (FaceWarp, sync, [LOWER, LOWER, LOWER], LOWER),
    "unet": (LipUNet, sync, [LOWER, AUDIO], LOWER),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_paper_size_has_the_shapes_and_the_parameters_that_the_docstring_states(name):
    network, stage, inputs, output = NETWORKS[name]
    model = registry.build(name, stage.get_config().model[name])
    assert isinstance(model, network)
    inputs = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in inputs]
    result, variables = jax.eval_shape(model.init_with_output, jax.random.key(0), *inputs)
    assert jax.tree.leaves(result)[0].shape == output
    millions = sum(x.size for x in jax.tree.leaves(variables)) / 1e6
    assert f"{name} {millions:.1f} M" in " ".join(stage.__doc__.split())


@pytest.mark.parametrize("size", common.IMAGE_SIZE)
def test_every_field_of_a_network_can_be_set(size):
    for stage in STAGES:
        for slot, fields in stage.get_config(size).model.items():
            known = {field.name for field in dataclasses.fields(registry.named(slot))}
            assert set(fields) == {"network"} | known - registry.NOT_CONFIGURED, slot
            registry.build(slot, fields)


def test_the_papers_figure_is_the_default_and_smaller_sizes_say_where_they_depart():
    for size in common.IMAGE_SIZE:
        own, paper = not common.full(size), common.full(size)
        module, lips = swap.get_config(size).model.swap, sync.get_config(size)
        assert (module.shared_linear, module.equal_start, module.residual) == (own, own, own)
        assert module.reach == int(own)
        assert (lips.model.unet.residual, lips.model.warp.attention) == (own, own)
        assert lips.model.unet.groups == (32 if paper else 0)
        assert lips.inference.warp == ("never" if paper else "self")
        assert lips.inference.quantize == own


@pytest.mark.parametrize("size", common.IMAGE_SIZE)
def test_sizes_agree_with_one_another(size):
    space = vqgan.get_config(size).model.vqgan
    cells = common.IMAGE_SIZE[size] // factor(space.multipliers, space.patch)
    assert swap.get_config(size).model.swap.grid == (cells, cells)
    assert swap.get_config(size).model.swap.embed_dim == space.embed_dim
    assert sync.get_config(size).model.unet.embed_dim == space.embed_dim
    for stage in STAGES:
        c = stage.get_config(size)
        assert c.data.root.startswith(f"runs/{size}/")
        agreement.check(c)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("size", common.IMAGE_SIZE)
def test_all_paths_hang_on_the_root_until_they_are_set(stage, size):
    c = stage.get_config(size)
    c.data.root = "/faces"
    c.root, c.pretrained = "/a b", "/public"
    c.compile_cache = ""
    plain = flatten_dict(json.loads(c.to_json()), sep=".")
    free = ("agreed", "build.", "data.root")  # what was usual, and what was set
    paths = {k: v for k, v in plain.items() if "/" in str(v) and not k.startswith(free)}
    assert paths and all(v.startswith(("/a b", "/public")) for v in paths.values()), paths
    assert c.data.root == "/faces" and c.compile_cache == "" and c.workdir == f"/a b/{c.stage}"
    needs = list(upstream.needs(c))
    folders = ("/a b/", "/public/", "/faces/")
    assert needs and all(str(need.path).startswith(folders) for need in needs)
    for need in needs:
        if need.command[1] == "swaptalk_jax.train":
            assert "--config.root=/a b" in need.command


def test_the_paper_takes_the_networks_that_it_names_and_open_none_with_a_fence():
    known = networks()
    for size, free in (("paper", False), ("open", True)):
        c = vqgan.get_config(size)
        taken = [c.frozen.recogniser, c.frozen.perceptual, c.data.features]
        taken = [known[folder.removeprefix("runs/pretrained/")] for folder in taken]
        assert [network.slot for network in taken] == ["recogniser", "perceptual", "speech"]
        if free:  # and each of them can be fetched
            assert all(network.licence in FREE and network.package for network in taken)
            assert "inswapper" not in str(c.build)
        else:
            names = ["arcface_r50", "vgg16", "hubert_base"]
            assert [network.name for network in taken] == names
            assert c.build.proxy == "inswapper" and c.build.triples == 109_000
        assert swap.get_config(size).frozen.recogniser == c.frozen.recogniser
        assert sync.get_config(size).data.features == c.data.features
    sizes = [json.loads(sync.get_config(size).model.to_json()) for size in ("paper", "open")]
    assert sizes[0] == sizes[1]


def test_a_size_that_there_is_not_is_one_line():
    with pytest.raises(flags.Error, match="no size 'huge'; the sizes are paper, open, small"):
        vqgan.get_config("huge")
    command = [sys.executable, "-m", "swaptalk_jax.train", "--config=configs/vqgan.py:huge"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode and "no size 'huge'" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_the_learning_rate_follows_the_batch_and_the_critic_the_steps():
    c = vqgan.get_config()
    assert optim.highest_rate(c.optimizer.default, c.train.batch_size) == pytest.approx(5.4e-5)
    assert losses.adversarial_start(c) == 50_000
    c.train.update(batch_size=96, steps=1000)
    rates = optim.highest_rate(c.optimizer.default, c.train.batch_size)
    assert rates == pytest.approx(4.5e-6 * 96) and losses.adversarial_start(c) == 100
    params = {"decoder": jnp.ones(3)}
    tx = optim.optimizer(c.optimizer, c.train.steps, c.train.batch_size, params)
    updates, _ = tx.update({"decoder": jnp.ones(3)}, tx.init(params), params)
    assert float(-updates["decoder"][0]) == pytest.approx(rates, rel=1e-3)  # Adam's first step
    assert losses.adversarial_start(vqgan.get_config("micro")) == 3


def test_each_smaller_size_says_where_it_departs_from_the_paper():
    for stage in STAGES:
        text = stage.__doc__.partition("depart")[2]
        for size in set(common.IMAGE_SIZE) - {"paper", "open"}:
            assert re.search(rf"^- [^:]*\b{size}\b[^:]*: .", text, re.M), (stage, size)

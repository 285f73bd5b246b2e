"""The configs: every size builds its networks, and the docstrings tell their true sizes."""

import jax
import jax.numpy as jnp
import pytest

from configs import common, expert, identity, swap, sync, vqgan
from swaptalk_jax.errors import RunError
from swaptalk_jax.models import registry
from swaptalk_jax.models.discriminator import PatchDiscriminator
from swaptalk_jax.models.expert import LipExpert
from swaptalk_jax.models.latent import factor
from swaptalk_jax.models.lip_unet import LipUNet
from swaptalk_jax.models.recogniser import Recogniser
from swaptalk_jax.models.swap import SwapTransformer
from swaptalk_jax.models.vqgan import VQGAN
from swaptalk_jax.models.warp import FaceWarp
from swaptalk_jax.training import upstream

IMAGE, WHOLE, LOWER, AUDIO = (1, 512, 512, 3), (1, 32, 32, 256), (1, 16, 32, 256), (1, 10, 160)
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
def test_sizes_agree_with_one_another(size):
    space = vqgan.get_config(size).model.vqgan
    cells = common.IMAGE_SIZE[size] // factor(space.multipliers, space.patch)
    assert swap.get_config(size).model.swap.grid == (cells, cells)
    assert swap.get_config(size).model.swap.embed_dim == space.embed_dim
    assert sync.get_config(size).model.unet.embed_dim == space.embed_dim
    for stage in (identity, vqgan, expert, swap, sync):
        c = stage.get_config(size)
        assert c.train.steps > 0 and c.data.root.startswith(f"runs/{size}/")
        assert all(need.command.startswith("python -m ") for need in c.upstream)


@pytest.mark.parametrize("size", common.IMAGE_SIZE)
def test_every_field_of_a_network_can_be_set(size):
    for stage in (identity, vqgan, expert, swap, sync):
        model = stage.get_config(size).model
        for slot, fields in model.items():
            assert set(fields) == set(registry.section(slot)), slot
            registry.build(slot, fields)


def test_the_papers_figure_is_the_default_and_smaller_sizes_say_where_they_depart():
    for size in common.IMAGE_SIZE:
        own, paper = size != "paper", size == "paper"
        module, lips = swap.get_config(size).model.swap, sync.get_config(size)
        assert (module.shared_linear, module.equal_start, module.residual) == (own, own, own)
        assert (lips.model.unet.residual, lips.model.warp.attention) == (own, own)
        assert lips.model.unet.groups == (32 if paper else 0)
        assert lips.inference.warp == ("never" if paper else "self")
        assert lips.inference.quantize == own


def test_unknown_size_is_refused():
    with pytest.raises(ValueError, match="small"):
        vqgan.get_config("huge")


def test_a_network_chosen_on_the_command_line_takes_the_place_of_ours(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # nothing of a user's own runs is here
    c = vqgan.get_config("small")
    c.upstream = tuple(need for need in c.upstream if need.slot)  # the data lie elsewhere
    with pytest.raises(RunError, match="train --config=configs/identity.py:small"):
        upstream.prepare(c)
    c.frozen.recogniser = str(tmp_path / "sface")
    with pytest.raises(RunError, match=f"pretrained fetch sface --out={tmp_path}"):
        upstream.prepare(c)
    (tmp_path / "sface").mkdir()
    (tmp_path / "sface" / "params.safetensors").touch()
    upstream.prepare(c)
    c.frozen.perceptual = "runs/pretrained/stlpips"
    with pytest.raises(RunError, match="pretrained fetch stlpips$"):
        upstream.prepare(c)

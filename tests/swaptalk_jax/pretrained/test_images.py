"""Perceptual networks and the VQGAN import, against what torch and diffusers gave.

tests/golden/images.npz is written by tests/parity/images.py from the same seeded weights.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import random_images
from places import GOLDEN as GOLDEN_DIR
from safetensors.numpy import save_file

from swaptalk_jax.configs import vqgan as config_vqgan
from swaptalk_jax.errors import CheckpointError
from swaptalk_jax.models.public.vgg import VGG16Features, blur_pool, unit
from swaptalk_jax.models.recogniser import Recogniser
from swaptalk_jax.models.vqgan import VQGAN
from swaptalk_jax.pretrained import stlpips, taming, vgg16
from swaptalk_jax.stages import losses
from swaptalk_jax.stages.vqgan import VQGANStage
from swaptalk_jax.weights import finished, store

SIDE = 24  # as the golden's images
VGG = {
    "vgg16": (vgg16.read, {}),
    "lpips": (vgg16.read_lpips, {"heads": True}),
    "stlpips": (stlpips.read, {"heads": True, "blur": True}),
}


@pytest.fixture(scope="module")
def golden():
    return np.load(GOLDEN_DIR / "images.npz")


@pytest.fixture(autouse=True, scope="module")
def quick_compilation():
    """What is compiled here runs once or twice."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def written(folder, weights):
    save_file(weights, folder / "x.safetensors")
    return folder / "x.safetensors"


@pytest.fixture(scope="module", params=VGG)
def network(request, tmp_path_factory):
    """(name, image, result, its gradient(image, result), distance(image, result))."""
    read, options = VGG[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    params, fields = read(written(folder, random_images.vgg(1, **options)))
    net, variables = VGG16Features(**fields), {"params": params}
    image, other = (random_images.image(seed, 2, SIDE, SIDE + 4, 3) for seed in (2, 3))

    def distance(image, result):
        return net.apply(variables, image, result, method="distance")

    slope = jax.jit(jax.grad(lambda image, result: distance(image, result).sum(), argnums=1))
    return request.param, image, 0.7 * image + 0.3 * other, slope, jax.jit(distance)


def error(ours, theirs):
    return float(np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max())


@pytest.mark.parametrize("name", ["vgg16", "stlpips"])
def test_maps_are_torchs(name, golden, tmp_path):
    read, options = VGG[name]
    params, fields = read(written(tmp_path, random_images.vgg(1, **options)))
    maps = jax.jit(VGG16Features(**fields).apply)
    image = random_images.image(2, 2, SIDE, SIDE + 4, 3)[:1]
    for i, x in enumerate(maps({"params": params}, image)):
        assert error(x, golden[f"{name}/map{i}"]) < 1e-4


def test_distances_are_torchs(network, golden):
    name, image, result, _, distance = network
    assert error(distance(image, result), golden[f"{name}/distance"]) < 1e-4


def test_equal_images_are_at_no_distance_and_pull_with_finite_force(network):
    _, image, result, slope, distance = network
    assert max(distance(image, image)) < 1e-5 * min(distance(image, result))
    assert np.isfinite(slope(image, image)).all()


def test_gradients_are_those_of_finite_differences(network):
    _, image, result, slope, distance = network
    gradient = np.asarray(slope(image, result))
    step = 5e-5  # beyond it ReLUs turn, below it float32 rounds
    for seed in (4, 5):
        # A random way uphill: along any other, what is measured nearly vanishes.
        way = np.sign(gradient) * np.abs(random_images.image(seed, *image.shape))
        ends = [np.float64(distance(image, result + side * step * way)) for side in (1, -1)]
        measured = (ends[0] - ends[1]).sum() / (2 * step)
        assert measured == pytest.approx(float((gradient * way).sum()), rel=0.01)


def test_vectors_that_vanish_have_no_direction_and_a_bounded_pull():
    x = jnp.array([[3.0, 4.0], [0.0, 0.0], [1e-12, 0.0]])
    np.testing.assert_allclose(unit(x), [[0.6, 0.8], [0, 0], [0, 0]], atol=1e-6)
    slope = jax.grad(lambda x: unit(x).sum())(x)
    assert np.isfinite(slope).all() and np.abs(slope).max() <= 1.001e5


def test_blurred_pooling_moves_with_the_picture():
    wide = random_images.image(0, 1, 33, 33, 2)
    still, moved = wide[:, :-1, :-1], wide[:, 1:, 1:]

    def change(pool):
        a, b = (pool(jnp.asarray(x))[:, 2:-2, 2:-2] for x in (still, moved))
        return float(jnp.std(a - b) / jnp.std(a))

    assert blur_pool(still).shape == (1, 17, 17, 2)
    assert change(blur_pool) < 0.8 * change(lambda x: nn.max_pool(x, (2, 2), (2, 2)))


def test_heads_are_found_beside_torchvisions_file(tmp_path):
    both = random_images.vgg(1, heads=True)
    heads = {k: x for k, x in both.items() if k.startswith("lin")}
    path = written(tmp_path, random_images.vgg(1))
    with pytest.raises(CheckpointError, match="no LPIPS heads in it.*vgg.pth"):
        vgg16.read_lpips(path)
    save_file(heads, tmp_path / "vgg.pth")
    params, fields = vgg16.read_lpips(path)
    assert fields == {"widths": random_images.WIDTHS, "heads": True}
    np.testing.assert_array_equal(params["lin3"], both["lin3.model.1.weight"].ravel())


def test_other_files_are_no_vgg16(tmp_path):
    weights = random_images.vgg(1)
    del weights["features.7.weight"]
    with pytest.raises(CheckpointError, match="12 convolutions where VGG16 has 13"):
        vgg16.read(written(tmp_path, weights))
    weights = random_images.vgg(1)
    weights["features.5.weight"] = weights["features.5.weight"][:, :2]
    with pytest.raises(CheckpointError, match="features.5.weight is"):
        vgg16.read(written(tmp_path, weights))
    weights = random_images.vgg(1, heads=True)
    with pytest.raises(CheckpointError, match="blurs"):
        stlpips.read(written(tmp_path, weights))
    del weights["lin4.model.1.weight"]
    with pytest.raises(CheckpointError, match="no lin4"):
        vgg16.read_lpips(written(tmp_path, weights))


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """(tensors of a taming checkpoint, parameters, fields)."""
    tensors = random_images.taming(4, **random_images.TAMING)
    lightning = {f"state_dict/{name}": x for name, x in tensors.items()}
    lightning["state_dict/loss.discriminator.main.0.weight"] = np.zeros(3, np.float32)
    return tensors, *taming.read(written(tmp_path_factory.mktemp("taming"), lightning))


def test_a_taming_vqgan_encodes_each_half_and_decodes_both_as_it_did(imported, golden):
    tensors, params, fields = imported
    image = random_images.image(5, 1, 32, 16, 3)

    @jax.jit
    def run(params):
        net, variables = VQGAN(**fields), {"params": params}
        z = net.apply(variables, image, method="encode")
        codes = net.apply(variables, z, method="nearest")
        z_q = net.apply(variables, codes, method="lookup")
        return z, codes, net.apply(variables, z_q, method="decode")

    z, codes, picture = run(params)
    book = tensors["quantize.embedding.weight"]
    shift = params["codebook_upper"][0] - book[0]
    np.testing.assert_allclose(params["codebook_lower"] - shift, book, atol=1e-5)
    assert error(z - shift, golden["vqgan/z"]) < 1e-4
    np.testing.assert_array_equal(codes, golden["vqgan/codes"])
    assert error(picture, golden["vqgan/picture"]) < 1e-4


def test_what_ours_has_no_place_for_is_said(tmp_path, capsys):
    tensors = random_images.taming(4, **random_images.TAMING)
    early = {k.replace("encoder.down.1.attn", "encoder.down.0.attn"): x for k, x in tensors.items()}
    params, _ = taming.read(written(tmp_path, early))
    said = capsys.readouterr().out
    assert "no place for encoder.down.0.attn" in said
    assert "encoder/level1_attention0, which it lacks" in said
    last = params["encoder"]["level1_attention0"]["attention"]["out"]
    assert not last["kernel"].any() and not last["bias"].any()
    assert params["encoder"]["middle_attention"]["attention"]["out"]["kernel"].any()


def test_other_autoencoders_are_refused(tmp_path):
    tensors = random_images.taming(4, 128, (1,), 1, z=4, embed=4, codes=8)
    without = {k: x for k, x in tensors.items() if not k.startswith("quantize.")}
    with pytest.raises(CheckpointError, match="no tensor 'quantize.embedding.weight'"):
        taming.read(written(tmp_path, without))
    narrow = random_images.taming(4, 64, (1,), 1, z=4, embed=4, codes=8)
    with pytest.raises(CheckpointError, match="levels of .64. channels"):
        taming.read(written(tmp_path, narrow))


def stage(tmp_path, **frozen):
    """A micro VQGANStage with a random recogniser, and its parameters."""
    c = config_vqgan.get_config("micro")
    numbers = dict(stages=(1,), width=8, embed_dim=8, input_size=8)
    image = random_images.image(0, 1, 32, 32, 3)
    params = jax.jit(Recogniser(**numbers).init)(jax.random.key(0), image)["params"]
    store.save_network(
        tmp_path / "recogniser", {"recogniser": params}, {"model": {"recogniser": numbers}}
    )
    c.frozen.update({"recogniser": str(tmp_path / "recogniser"), **frozen})
    return VQGANStage(c, finished.opened(c))


def parameters(stage):
    return {slot: network.params() for slot, network in stage.networks.items()}


def test_the_perceptual_loss_is_the_installed_networks_distance_or_that_of_edges(tmp_path):
    image, result = (random_images.image(seed, 2, 32, 32, 3) for seed in (0, 1))
    plain = stage(tmp_path)
    nets = parameters(plain)
    assert "perceptual" not in nets
    edges = losses.feature_difference(losses.edge_maps(image), losses.edge_maps(result))
    assert plain.difference(nets, image, result) == pytest.approx(float(edges))
    params, fields = stlpips.read(written(tmp_path, random_images.vgg(1, heads=True, blur=True)))
    store.save_network(
        tmp_path / "stlpips",
        {"perceptual": params},
        {"stage": "pretrained", "network": "VGG16Features", "model": {"perceptual": fields}},
    )
    with_network = stage(tmp_path, perceptual=str(tmp_path / "stlpips"))
    nets = parameters(with_network)
    distance = jax.jit(functools.partial(VGG16Features(**fields).apply, method="distance"))
    each = distance({"params": params}, image, result)
    only = {"perceptual": 1.0, "perceptual_examples": 0, "edges": 0.0}
    both = {"perceptual": 0.5, "perceptual_examples": 1, "edges": 2.0}
    for weights, expected in ((only, each.mean()), (both, 0.5 * each[0] + 2.0 * edges)):
        with_network.config.loss.update(weights)
        found = jax.jit(lambda *x: with_network.difference(*x))(nets, image, result)
        assert float(found) == pytest.approx(float(expected))
    assert found != pytest.approx(float(edges))

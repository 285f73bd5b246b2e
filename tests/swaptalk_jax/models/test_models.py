"""The networks: shapes at the paper's size, gradients and behaviour at tiny sizes."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from swaptalk_jax.errors import CheckpointError
from swaptalk_jax.models import registry
from swaptalk_jax.models.blocks import ResidualBlock, SelfAttention, group_count, remat
from swaptalk_jax.models.discriminator import PatchDiscriminator
from swaptalk_jax.models.expert import LipExpert, unit
from swaptalk_jax.models.generator import Generator
from swaptalk_jax.models.kernels import upsample
from swaptalk_jax.models.latent import halves, join
from swaptalk_jax.models.lip_unet import LipUNet
from swaptalk_jax.models.public.vgg import VGG16Features
from swaptalk_jax.models.recogniser import Recogniser
from swaptalk_jax.models.swap import SwapTransformer
from swaptalk_jax.models.vqgan import VQGAN
from swaptalk_jax.models.warp import FaceWarp, grid_sample

TINY_VQGAN = dict(width=8, multipliers=(1, 2), blocks=1, embed_dim=8, codes=16)
TINY_UNET = dict(
    width=8, multipliers=(1, 2), blocks=1, attention_levels=(1,), heads=2, groups=2, residual=True
)


@pytest.fixture(autouse=True, scope="module")
def quick_compilation():
    """These networks run a few times each: most of the tests' time would be LLVM's optimiser."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def array(*shape, seed=0):
    """Deterministic values in [-1, 1]."""
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


# name: (network at the paper's size, input shapes, output shapes, millions of parameters)
IMAGE, GRID, HALF, SOUND = (2, 512, 512, 3), (2, 32, 32, 256), (2, 16, 32, 256), (2, 10, 768)
PAPER = {
    "vqgan": (VQGAN(), [IMAGE], [IMAGE, GRID, GRID, (2, 32, 32)], 72.8),
    "vqgan, f = 8": (
        VQGAN(multipliers=(1, 1, 2, 4)),
        [IMAGE],
        [IMAGE, (2, 64, 64, 256), (2, 64, 64, 256), (2, 64, 64)],
        65.7,
    ),
    "recogniser": (Recogniser(), [IMAGE], [(2, 512)], 43.6),
    "expert": (LipExpert(), [(2, 5, 16, 32, 256), SOUND], [(2, 512), (2, 512)], 23.1),
    "swap": (SwapTransformer(), [GRID, GRID], [GRID], 26.1),
    "warp": (FaceWarp(), [HALF, HALF, HALF], [HALF, (2, 16, 32, 2)], 9.5),
    "unet": (LipUNet(), [HALF, SOUND], [HALF], 213.6),
    "discriminator": (PatchDiscriminator(), [IMAGE], [(2, 62, 62, 1)], 2.8),
    "vgg": (
        VGG16Features(),
        [IMAGE],
        [(2, 512 // 2**i, 512 // 2**i, c) for i, c in enumerate((64, 128, 256, 512, 512))],
        14.7,
    ),
}


@pytest.mark.parametrize("name", PAPER)
def test_shapes_and_parameter_counts_at_the_papers_size(name):
    network, inputs, outputs, millions = PAPER[name]
    inputs = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in inputs]
    result, params = jax.eval_shape(network.init_with_output, jax.random.key(0), *inputs)
    assert [x.shape for x in jax.tree.leaves(result)] == outputs
    assert {x.dtype for x in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    count = sum(math.prod(x.shape) for x in jax.tree.leaves(params))
    print(f"{name}: {count / 1e6:.1f} M parameters")
    assert count / 1e6 == pytest.approx(millions, abs=0.06)


# name: (tiny network, inputs)
TINY = {
    "vqgan": (VQGAN(**TINY_VQGAN), [array(2, 8, 8, 3)]),
    "recogniser": (
        Recogniser(stages=(1, 1), width=8, embed_dim=8, input_size=8),
        [array(2, 16, 16, 3)],
    ),
    "expert": (
        LipExpert(width=8, multipliers=(1, 2), audio_width=16, embed_dim=16),
        [array(2, 5, 4, 8, 6), array(2, 10, 12, seed=1)],
    ),
    "swap": (
        SwapTransformer(
            blocks=2, width=16, heads=2, ffn_width=32, embed_dim=8, grid=(4, 4), residual=True
        ),
        [array(2, 4, 4, 8), array(2, 4, 4, 8, seed=1)],
    ),
    "warp": (
        FaceWarp(width=8, depth=1, attention=True),
        [array(2, 4, 8, 8, seed=i) for i in range(3)],
    ),
    "unet": (
        LipUNet(**TINY_UNET, context_width=16, embed_dim=8),
        [array(2, 4, 8, 8), array(2, 10, 12, seed=1)],
    ),
    "discriminator": (PatchDiscriminator(width=8, layers=2), [array(2, 32, 32, 3)]),
}


@functools.cache
def trained(name):
    """(parameters as after some training: nothing is zero any more, compiled apply).

    Drawn by NumPy: to compile Flax's initialisers would take longer than all the tests.
    """
    network, inputs = TINY[name]
    shapes = jax.eval_shape(network.init, jax.random.key(0), *inputs)
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        noise = rng.normal(size=leaf.shape).astype(np.float32)
        if path[-1].key == "scale":
            return 1 + 0.1 * noise
        return noise / math.sqrt(math.prod(leaf.shape[:-1]) or 1) if leaf.ndim > 1 else 0.1 * noise

    return jax.tree.map_with_path(draw, shapes), jax.jit(network.apply, static_argnames="method")


# Softmax does not change when all keys move by one vector; a bias at the end of the hourglass is
# gone from the difference of its two outputs.
NO_GRADIENT = ("key/bias",)


@pytest.mark.parametrize("name", TINY)
def test_every_parameter_gets_a_finite_gradient(name):
    network, inputs = TINY[name]
    params, _ = trained(name)

    def loss(params):
        outputs = jax.tree.leaves(network.apply(params, *inputs))
        outputs = [x for x in outputs if jnp.issubdtype(x.dtype, jnp.floating)]
        return sum(jnp.mean(x * array(*x.shape, seed=7)) for x in outputs)

    for path, gradient in jax.tree.leaves_with_path(jax.jit(jax.grad(loss))(params)):
        gradient = np.asarray(gradient)
        where = jax.tree_util.keystr(path, simple=True, separator="/")
        assert np.isfinite(gradient).all(), where
        if not where.endswith(NO_GRADIENT):
            assert np.abs(gradient).max() > 1e-7, where


@pytest.mark.parametrize("name", TINY)
def test_bfloat16_compute_keeps_float32_parameters_and_results(name):
    network, inputs = TINY[name]
    params, _ = trained(name)
    lower = network.clone(dtype=jnp.bfloat16)
    of_lower = jax.eval_shape(lower.init, jax.random.key(0), *inputs)
    assert {x.dtype for x in jax.tree.leaves(of_lower)} == {jnp.dtype("float32")}
    program = jax.make_jaxpr(lower.apply)(params, *inputs)
    assert "bf16" in str(program)
    assert all(x.dtype in (jnp.float32, jnp.int32) for x in program.out_avals)


def test_bfloat16_results_are_near_float32():
    network, inputs = TINY["swap"]
    params, apply = trained("swap")
    rounded = jax.jit(network.clone(dtype=jnp.bfloat16).apply)(params, *inputs)
    assert np.abs(apply(params, *inputs) - rounded).max() < 0.1


def test_halves_and_join_are_inverse():
    x = array(2, 4, 6, 3)
    upper, lower = halves(x)
    assert upper.shape == lower.shape == (2, 2, 6, 3)
    assert (join(upper, lower) == x).all()


def test_the_upper_half_is_encoded_without_the_lower():
    params, apply = trained("vqgan")
    image = array(2, 8, 8, 3)
    other = np.concatenate([image[:, :4], array(2, 4, 8, 3, seed=1)], axis=1)
    z, z_other = (apply(params, x, method="encode") for x in (image, other))
    np.testing.assert_array_equal(z[:, :2], z_other[:, :2])
    assert np.abs(z[:, 2:] - z_other[:, 2:]).max() > 0.1


def test_both_halves_go_through_one_encoder():
    params, apply = trained("vqgan")
    upper = array(2, 4, 8, 3)
    z = apply(params, np.concatenate([upper, upper], axis=1), method="encode")
    np.testing.assert_allclose(*halves(z), atol=1e-5)


def test_nearest_is_the_nearest_code_of_the_halfs_own_codebook():
    params, apply = trained("vqgan")
    z = array(2, 4, 4, 8)
    codes = apply(params, z, method="nearest")
    assert codes.dtype == jnp.int32
    for half, rows in (("upper", slice(0, 2)), ("lower", slice(2, 4))):
        book = params["params"][f"codebook_{half}"].astype(np.float64)
        distance = ((z[:, rows, :, None].astype(np.float64) - book) ** 2).sum(-1)
        np.testing.assert_array_equal(codes[:, rows], distance.argmin(-1))


def test_codes_survive_lookup_and_nearest():
    params, apply = trained("vqgan")
    codes = np.random.default_rng(3).integers(0, 16, (2, 4, 4)).astype(np.uint16)
    z_q = apply(params, codes, method="lookup")
    assert z_q.shape == (2, 4, 4, 8)
    np.testing.assert_array_equal(apply(params, z_q, method="nearest"), codes)
    np.testing.assert_array_equal(apply(params, codes[None], method="lookup")[0], z_q)  # a window


def test_the_second_code_of_a_cell_stands_for_what_the_first_one_leaves():
    model = VQGAN(**TINY_VQGAN, attention=False, depth=2)
    image, z = array(1, 4, 4, 3), array(2, 4, 4, 8)
    shapes = jax.eval_shape(model.init, jax.random.key(0), image)["params"]
    params = {"params": jax.tree.map(lambda x: array(*x.shape, seed=x.size), shapes)}
    codes = model.apply(params, z, method="nearest")
    assert codes.shape == (2, 4, 8)
    for half, rows in (("upper", slice(0, 2)), ("lower", slice(2, 4))):
        left, book = z[:, rows], params["params"][f"codebook_{half}"]
        assert book.shape == (32, 8)
        for level in range(2):
            part = book[16 * level : 16 * (level + 1)]
            number = ((left[..., None, :] - part) ** 2).sum(-1).argmin(-1)
            np.testing.assert_array_equal(codes[:, rows, level::2], number + 16 * level)
            left = left - part[number]
        z_q = model.apply(params, codes, method="lookup")[:, rows]
        np.testing.assert_allclose(z_q, z[:, rows] - left, atol=1e-5)


def last_convolution(vqgan, hidden):
    """The way to call `to_rgb`, a submodule that exists only inside `apply`."""
    return vqgan.to_rgb(hidden)


def test_call_joins_the_parts_and_decode_is_to_rgb_of_trunk():
    params, apply = trained("vqgan")
    image = array(2, 8, 8, 3)
    reconstruction, z, z_q, codes = apply(params, image)
    np.testing.assert_array_equal(codes, apply(params, z, method="nearest"))
    np.testing.assert_array_equal(z_q, apply(params, codes, method="lookup"))
    hidden = apply(params, z_q, method="trunk")
    assert hidden.shape == (2, 8, 8, 8)
    decoded = apply(params, hidden, method=last_convolution)
    np.testing.assert_allclose(decoded, reconstruction, atol=1e-4)
    assert params["params"]["to_rgb"]["kernel"].shape == (3, 3, 8, 3)


def test_straight_through_reaches_the_encoder_and_not_the_codebooks():
    network, inputs = TINY["vqgan"]
    params = jax.tree.map(jnp.asarray, trained("vqgan")[0]["params"])

    def loss(to_z, codebook):
        encoder = {**params["encoder"], "to_z": to_z}
        weights = {**params, "encoder": encoder, "codebook_upper": codebook}
        return network.apply({"params": weights}, *inputs)[0].std()

    gradients = jax.jit(jax.grad(loss, argnums=(0, 1)))
    to_z, codebook = gradients(params["encoder"]["to_z"], params["codebook_upper"])
    assert np.abs(to_z["kernel"]).max() > 0
    assert np.abs(codebook).max() == 0


@pytest.mark.parametrize("name", ["vqgan", "recogniser", "expert", "swap", "unet"])
def test_remat_leaves_the_parameter_tree_as_it_is(name):
    network, inputs = TINY[name]
    again = network.clone(remat=True)
    trees = [jax.eval_shape(net.init, jax.random.key(0), *inputs) for net in (network, again)]
    assert trees[0] == trees[1]
    assert "remat" in str(jax.make_jaxpr(again.apply)(trees[0], *inputs))


@pytest.mark.parametrize(
    ("network", "field", "between_tokens"), [(ResidualBlock, 8, 0), (SelfAttention, 2, 2)]
)
def test_remat_computes_no_convolution_or_dense_layer_again(network, field, between_tokens):
    """But it keeps less: no norms, no activations, nothing of all pairs of tokens."""
    x, products, kept = array(2, 8, 8, 8), [], []
    for wanted in (False, True, "all"):
        block = remat(network, wanted)(field, name="block")
        params = block.init(jax.random.key(0), x)
        _, back = jax.vjp(block.apply, params, x)
        text = str(jax.make_jaxpr(lambda x: jax.vjp(block.apply, params, x)[1](x))(x))  # noqa: B023
        products.append(text.count("conv_general_dilated[") + text.count("dot_general["))
        kept.append(sum(leaf.nbytes for leaf in jax.tree.leaves(back)))
    assert products[1] == products[0] + between_tokens < products[2]
    assert 0.7 * kept[0] > kept[1] > kept[2]


def test_an_image_that_does_not_fit_the_grid_is_refused():
    params, apply = trained("vqgan")
    with pytest.raises(ValueError, match="multiple of 4 and the width of 2"):
        apply(params, array(1, 6, 8, 3), method="encode")


def test_recogniser_embeddings_have_norm_one_and_look_only_into_the_box():
    image = TINY["recogniser"][1][0]
    params, apply = trained("recogniser")
    embedding = apply(params, image)
    np.testing.assert_allclose(np.linalg.norm(embedding, axis=-1), 1, atol=1e-5)
    outside = image.copy()
    outside[:, 0], outside[:, :, -1] = 1, 1
    np.testing.assert_array_equal(apply(params, outside), embedding)
    assert np.abs(apply(params, image[:, ::-1]) - embedding).max() > 1e-3


def test_expert_features_are_non_negative_with_norm_one_and_see_the_order_of_frames():
    lower, audio = TINY["expert"][1]
    params, apply = trained("expert")
    video, sound = apply(params, lower, audio)
    for features in (video, sound):
        assert features.min() >= 0
        np.testing.assert_allclose(np.linalg.norm(features, axis=-1), 1, atol=1e-4)
    assert np.abs(video - apply(params, lower[:, ::-1], audio)[0]).max() > 1e-3


def test_unit_vectors_of_nothing_are_zero_with_a_finite_gradient():
    value, gradient = jax.jit(jax.value_and_grad(lambda x: jnp.sum(unit(x))))(
        np.zeros((2, 4), np.float32)
    )
    assert value == 0
    assert np.isfinite(gradient).all()


def test_swap_depends_on_source_and_target_and_tells_them_apart():
    source, target = TINY["swap"][1]
    params, apply = trained("swap")
    result = apply(params, source, target)
    for inputs in ((source[::-1], target), (source, target[::-1]), (target, source)):
        assert np.abs(apply(params, *inputs) - result).max() > 1e-3


def test_swap_refuses_a_grid_without_position_embeddings():
    with pytest.raises(ValueError, match="source grid"):
        trained("swap")[1](trained("swap")[0], array(1, 2, 4, 8), array(1, 4, 4, 8))


def test_unet_depends_on_sound_and_on_its_order_in_time():
    x, audio = TINY["unet"][1]
    params, apply = trained("unet")
    result = apply(params, x, audio)
    for other in (audio[::-1], audio[:, ::-1]):
        assert np.abs(apply(params, x, other) - result).max() > 1e-4


def with_initial(name, *modules):
    """`trained` parameters with these modules as initialisation makes them (only they compile)."""
    network, inputs = TINY[name]

    @jax.jit
    def initial(rng):
        params = network.init(rng, *inputs)["params"]
        return [functools.reduce(dict.__getitem__, m.split("/"), params) for m in modules]

    params = flatten_dict(trained(name)[0]["params"], sep="/")
    for module, values in zip(modules, initial(jax.random.key(0)), strict=True):
        params |= {f"{module}/{leaf}": value for leaf, value in values.items()}
    return {"params": unflatten_dict(params, sep="/")}


def test_unet_starts_as_identity_and_without_residual_at_zero():
    network, inputs = TINY["unet"]
    params = with_initial("unet", "conv_out")
    result = trained("unet")[1](params, *inputs)
    np.testing.assert_array_equal(result, inputs[0])
    plain = network.clone(residual=False)
    params = jax.jit(plain.init)(jax.random.key(0), *inputs)
    assert (plain.apply(params, *inputs) == 0).all()


def test_residual_swap_starts_as_the_target():
    source, target = TINY["swap"][1]
    result = trained("swap")[1](with_initial("swap", "linear_out"), source, target)
    np.testing.assert_array_equal(result, target)


@pytest.mark.parametrize("multipliers, kept", [((1, 1), 1), ((1, 1, 1), 2)])
def test_vqgan_with_a_shortcut_starts_as_the_means_of_each_cells_parts(multipliers, kept):
    network = VQGAN(
        width=4, multipliers=multipliers, patch=2, shortcut=True, blocks=1, embed_dim=48, codes=8
    )
    image = array(2, 16, 16, 3)
    params = jax.jit(network.init)(jax.random.key(0), image)
    z = network.apply(params, image, method="encode")
    result = network.apply(params, z, method="decode")
    means = image.reshape(2, 16 // kept, kept, 16 // kept, kept, 3).mean((2, 4))
    np.testing.assert_allclose(
        result, means.repeat(kept, axis=1).repeat(kept, axis=2), atol=1e-5
    )  # f = 4 fits into 48 numbers, of f = 8 the means of 2 x 2 pixels do


def test_warp_starts_as_identity():
    inputs = TINY["warp"][1]
    params = with_initial("warp", "unet/level0_offsets", "unet/level1_offsets")
    warped, offsets = trained("warp")[1](params, *inputs)
    np.testing.assert_allclose(warped, inputs[2], atol=1e-6)
    assert (offsets == 0).all()


def test_warp_of_equal_upper_halves_is_the_same_whoever_it_is():
    someone, another, lower = TINY["warp"][1]
    params, apply = trained("warp")
    np.testing.assert_array_equal(
        apply(params, someone, someone, lower)[1], apply(params, another, another, lower)[1]
    )
    assert np.abs(apply(params, someone, another, lower)[1]).max() > 1e-3


def test_grid_sample_without_offsets_is_identity():
    grid = array(2, 4, 6, 3)
    result = jax.jit(grid_sample)(grid, np.zeros((2, 4, 6, 2), np.float32))
    np.testing.assert_allclose(result, grid, atol=1e-6)


def test_grid_sample_by_whole_cells_is_a_shift_with_the_border_repeated():
    grid = array(2, 4, 6, 3)
    offsets = np.broadcast_to(np.float32([2, -1]), (2, 4, 6, 2))  # x + 2, y - 1
    rows, columns = np.clip(np.arange(4) - 1, 0, 3), np.clip(np.arange(6) + 2, 0, 5)
    result = jax.jit(grid_sample)(grid, offsets)
    np.testing.assert_allclose(result, grid[:, rows][:, :, columns], atol=1e-6)


def test_grid_sample_between_cells_is_bilinear_and_differentiable():
    y, x = np.mgrid[:4, :6].astype(np.float32)
    ramp = (3 * x + 5 * y)[None, ..., None]
    offsets = np.full((1, 4, 6, 2), 0.25, np.float32)
    inside = (0, slice(0, 3), slice(0, 5))
    result = np.asarray(jax.jit(grid_sample)(ramp, offsets))
    np.testing.assert_allclose(result[inside], ramp[inside] + 2, atol=1e-5)
    gradient = np.asarray(jax.jit(jax.grad(lambda o: grid_sample(ramp, o).sum()))(offsets))
    np.testing.assert_allclose(gradient[inside], np.broadcast_to([3, 5], (3, 5, 2)), atol=1e-5)


def test_vgg_normalises_as_imagenet_and_names_weights_as_torchvision():
    network = VGG16Features()
    image = array(1, 16, 16, 3)
    params = jax.eval_shape(network.init, jax.random.key(0), image)["params"]
    numbers = sorted(int(name.removeprefix("features_")) for name in params)
    assert numbers == [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28]
    assert params["features_28"]["kernel"].shape == (3, 3, 512, 512)


def test_upsample_repeats_each_cell():
    x = array(2, 3, 4, 5)
    np.testing.assert_array_equal(jax.jit(upsample)(x), np.repeat(np.repeat(x, 2, 1), 2, 2))


def test_groups_divide_the_channels_and_are_32_at_the_papers_widths():
    for channels in (8, 16, 24, 32, 48, 96, 128, 320, 512):
        assert channels % group_count(channels) == 0
    assert group_count(128) == group_count(512) == 32


@pytest.mark.parametrize(
    "network, inputs, words",
    [
        (
            LipUNet(**TINY_UNET | {"groups": 3}, embed_dim=8),
            [(1, 4, 8, 8), (1, 10, 12)],
            "groups = 3 do not",
        ),
        (LipUNet(**TINY_UNET), [(1, 4, 8, 8), (1, 10, 12)], "residual needs embed_dim = 8"),
        (LipUNet(**TINY_UNET), [(1, 3, 8, 8), (1, 10, 12)], "3x8 cells cannot be halved 1 times"),
        (
            LipUNet(**TINY_UNET | {"attention_levels": (2,)}, embed_dim=8),
            [(1, 4, 8, 8), (1, 10, 12)],
            "attention_levels = .2,., but",
        ),
        (FaceWarp(width=8, depth=3), [(1, 4, 8, 8)] * 3, "multiples of 8"),
        (LipExpert(), [(1, 5, 4, 8, 6), (1, 10, 12)], "halved 3 times"),
        (SwapTransformer(grid=(4, 4), heads=3, width=16), [(1, 4, 4, 8)] * 2, "multiple of heads"),
        (SwapTransformer(grid=(4, 4), residual=True), [(1, 4, 4, 8)] * 2, "embed_dim = 8"),
    ],
)
def test_contradictions_are_one_line(network, inputs, words):
    inputs = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in inputs]
    with pytest.raises(ValueError, match=words) as caught:
        jax.eval_shape(network.init, jax.random.key(0), *inputs)
    assert "\n" not in str(caught.value)


def shapes(network, *inputs):
    found = jax.eval_shape(network.init, jax.random.key(0), *inputs)["params"]
    return flatten_dict(found, sep="/")


def test_the_papers_figures_differ_from_the_small_sizes_by_fields():
    z = array(1, 4, 4, 8)
    fields = dict(blocks=1, width=16, heads=2, ffn_width=16, embed_dim=8, grid=(4, 4))
    figure = shapes(SwapTransformer(**fields), z, z)
    text = shapes(SwapTransformer(**fields, shared_linear=True), z, z)
    assert {name for name in figure if name.startswith("linear_")} >= {
        "linear_source/kernel",
        "linear_target/kernel",
    }
    assert "linear_in/kernel" in text and "linear_source/kernel" not in text
    for equal in (False, True):
        network = SwapTransformer(**fields, equal_start=equal)
        start = jax.jit(network.init)(jax.random.key(0), z, z)["params"]["block0"]["attention"]
        assert (start["query"]["kernel"] == start["key"]["kernel"]).all() == equal
    warp = [array(1, 4, 8, 8)] * 3
    for attention in (False, True):
        found = shapes(FaceWarp(width=8, depth=1, attention=attention), *warp)
        assert any("attention" in name for name in found) == attention


@pytest.mark.parametrize("reach", [0, 1])
def test_how_far_a_swapped_cell_sees(reach):
    fields = dict(blocks=1, width=16, heads=2, ffn_width=16, embed_dim=8, grid=(8, 8))
    network = SwapTransformer(**fields, reach=reach)
    source, target = array(1, 8, 8, 8), array(1, 8, 8, 8, seed=1)
    params = network.init(jax.random.key(0), source, target)
    other = network.apply(params, source, jnp.asarray(target).at[0, 3, 3].add(1.0))
    moved = np.abs(other - network.apply(params, source, target)).max((0, 3)) > 1e-6
    seen = np.zeros((8, 8), bool)
    seen[3 - 2 * reach : 4 + 2 * reach, 3 - 2 * reach : 4 + 2 * reach] = True
    np.testing.assert_array_equal(moved, seen)


def test_an_encoder_may_be_narrower_than_the_decoder():
    for given, width in ((0, 8), (4, 4)):
        found = shapes(VQGAN(width=8, encoder_width=given, multipliers=(1, 2)), array(1, 16, 16, 3))
        assert found["encoder/from_rgb/kernel"].shape[-1] == width
        assert found["to_rgb/kernel"].shape[-2] == 8


def test_the_generator_keeps_the_upper_half_and_moves_lips_only_where_asked():
    (warp, _), (unet, _) = TINY["warp"], TINY["unet"]
    generator = Generator(warp, unet)
    params = {"warp": trained("warp")[0]["params"], "unet": trained("unet")[0]["params"]}
    target, reference, sound = array(2, 8, 8, 8), array(2, 8, 8, 8, seed=1), array(2, 10, 12)
    result = generator.apply(params, target, reference, sound)
    np.testing.assert_array_equal(halves(result)[0], halves(target)[0])
    lips, offsets = generator.lips(params, target, reference, sound)
    np.testing.assert_array_equal(halves(result)[1], lips)
    assert offsets.shape == (2, 4, 8, 2)
    still = generator.apply(params, target, reference, sound, warp=False)
    own = unet.apply({"params": params["unet"]}, halves(reference)[1], sound)
    np.testing.assert_array_equal(halves(still)[1], own)
    assert np.abs(still - result).max() > 1e-3


def test_a_config_that_names_no_network_or_no_field_is_refused_in_one_line():
    assert registry.build("swap", {"network": "SwapTransformer", "blocks": 3}).blocks == 3
    for fields, words in (
        ({"network": "DiT"}, "model.swap names 'DiT', which is no swap here"),
        ({"depth": 3}, "SwapTransformer has no depth; its fields are: blocks, "),
    ):
        with pytest.raises(CheckpointError, match=words):
            registry.build("swap", fields)
    with pytest.raises(CheckpointError, match="no such network"):
        registry.build("light", {})

"""A stage that learns from the finished run of a larger one."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from swaptalk_jax import backend, errors, stages
from swaptalk_jax.configs import expert, identity, sync, vqgan
from swaptalk_jax.models import registry
from swaptalk_jax.weights import finished, provenance, store

IMAGE = {"image": np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)}
FRAMES, CONTEXT, TOKEN = 5, 5, 8
CODES = np.random.default_rng(1).integers(0, 32, (2, FRAMES, 16, 16), np.uint16)
WINDOWS = {
    "codes": CODES,
    "reference": CODES[:, 0],
    "audio": np.random.default_rng(2).normal(0, 1, (2, FRAMES, 2 * CONTEXT * TOKEN)),
}
FINGERPRINTS = {"vqgan_fingerprint": "codes of ours", "sound_fingerprint": "log_mel"}


def drawn(shapes, seed):
    """Random values of these shapes."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: jnp.asarray(rng.normal(0, 0.1, x.shape), jnp.float32), shapes)


def kept(folder, config, params, **changed):
    """Leaves what a finished run leaves; returns its folder."""
    store.save_network(folder, params, json.loads(config.to_json()) | FINGERPRINTS | changed)
    return str(folder)


def network(folder, config, slot, *inputs):
    """The folder of a random network of this slot."""
    model = registry.build(slot, config.model[slot])
    shapes = jax.eval_shape(model.init, jax.random.key(0), *inputs)["params"]
    return kept(folder, config, {slot: drawn(shapes, 7)})


def made(config, batch):
    """(stage, parameters of the frozen networks, shapes of its own) of a config."""
    stage = stages.make(config, finished.opened(config, stages.named(config.stage).bundled))
    frozen = jax.device_put({slot: net.params() for slot, net in stage.networks.items()})
    return stage, frozen, jax.eval_shape(stage.init, jax.random.key(0), batch)


def in_a_hurry(function):
    """The function, compiled rather soon than well."""
    return backend.jit(function, once=True)


@pytest.fixture
def images(tmp_path):
    """A VQGAN's config at micro, with its recogniser."""
    c, image = vqgan.get_config("micro"), jnp.zeros((1, 32, 32, 3))
    c.frozen.recogniser = network(
        tmp_path / "identity", identity.get_config("micro"), "recogniser", image
    )
    return c, IMAGE


@pytest.fixture
def windows(tmp_path):
    """A sync's config at micro, with its VQGAN and expert."""
    c = sync.get_config("micro")
    image = jnp.zeros((1, 32, 32, 3))
    c.frozen.vqgan = network(tmp_path / "vqgan", vqgan.get_config("micro"), "vqgan", image)
    heard = jnp.zeros((1, FRAMES, 8, 16, 16)), jnp.zeros((1, 2 * CONTEXT, TOKEN))
    c.frozen.expert = network(tmp_path / "expert", expert.get_config("micro"), "expert", *heard)
    return c, WINDOWS


@pytest.mark.parametrize("data", ["images", "windows"])
def test_a_student_learns_its_teachers_results_and_has_none_to_learn_from_itself(
    data, request, tmp_path, monkeypatch
):
    config, batch = request.getfixturevalue(data)
    larger = config.copy_and_resolve_references()
    name = "vqgan" if data == "images" else "unet"
    larger.model[name].width *= 2
    if name == "vqgan":  # a teacher of other codes, too
        larger.model.vqgan.update(codes=16, embed_dim=24)
    teacher, _, shapes = made(larger, batch)
    config.distil.teacher = kept(
        tmp_path / "teacher", larger, {n: drawn(shapes[n], 3) for n in teacher.bundled}
    )
    stage, frozen, shapes = made(config, batch)
    params = drawn(shapes, 4)

    def losses_of(stage, params):
        """(the whole loss, its distance from the teacher)."""
        total, (metrics, _) = stage.loss(params, frozen, batch, jax.random.key(0), 0)
        return total, metrics["loss/distil"]

    # What is not asked for is not compiled: here all but the distance, below all but its weight.
    found, pull = in_a_hurry(jax.value_and_grad(lambda p: losses_of(stage, p)[1]))(params)
    assert found > 1e-3
    assert all(optax.global_norm(pull[n]) > 1e-5 for n in stage.bundled)

    own = {n: params[n] for n in stage.bundled}
    config.distil.teacher = kept(tmp_path / "itself", config, own)
    frozen |= {"teacher_" + name: own[name] for name in own}
    itself, _, _ = made(config, batch)
    found = in_a_hurry(lambda p: losses_of(itself, p)[1])(params)
    assert float(found) == pytest.approx(0.0, abs=1e-6)

    def total(distance):
        with monkeypatch.context() as patch:
            patch.setattr(stage, "distance_from_teacher", lambda *_: distance)
            return losses_of(stage, params)[0]

    config.distil.weight = 0.25
    stage.config = config
    assert float(in_a_hurry(jax.grad(total))(1.0)) == pytest.approx(0.25)


def test_without_a_teacher_nothing_is_asked_of_one(images):
    stage, frozen, shapes = made(*images)
    assert set(frozen) == {"recogniser"}
    metrics = jax.eval_shape(stage.loss, shapes, frozen, IMAGE, jax.random.key(0), 0)[1][0]
    assert "loss/distil" not in metrics


@pytest.mark.parametrize(
    "changed, line",
    [
        ({"vqgan_fingerprint": "others"}, r"another VQGAN \(others, here: codes of ours\)"),
        ({"sound_fingerprint": "hubert"}, "other features of sound"),
        ({"data": {"context": 3}}, "hears 3 tokens on either side, here: 5"),
    ],
)
def test_a_teacher_of_other_codes_or_sound_is_refused_in_one_line(changed, line, tmp_path):
    c = sync.get_config("micro")
    c.distil.teacher = kept(tmp_path / "teacher", c, {}, **changed)
    networks = {
        slot: finished.FinishedNetwork(c.distil.teacher, slot, "float32")
        for slot in ("teacher_warp", "teacher_unet")
    }
    with pytest.raises(errors.CheckpointError, match=line) as refused:
        provenance.check_teachers(networks, c, *FINGERPRINTS.values())
    assert "\n" not in str(refused.value)
    fits = kept(tmp_path / "fits", c, {})
    networks = {"teacher_unet": finished.FinishedNetwork(fits, "teacher_unet", "float32")}
    provenance.check_teachers(networks, c, *FINGERPRINTS.values())


def test_a_folder_that_is_no_run_of_the_stage_is_refused_by_name(windows, tmp_path):
    config, batch = windows
    config.distil.teacher = config.frozen.vqgan
    with pytest.raises(errors.CheckpointError, match="vqgan: holds no warp"):
        made(config, batch)

"""A stage is one file: everything else is derived from what it declares."""

import dataclasses
import json
import sys
import textwrap
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import random_bundle
from ml_collections import ConfigDict

from swaptalk_jax import errors, stages
from swaptalk_jax.configs import common, identity, swap, sync, vqgan
from swaptalk_jax.evaluation import report
from swaptalk_jax.models import registry
from swaptalk_jax.models.blocks import cut
from swaptalk_jax.models.recogniser import Recogniser
from swaptalk_jax.stages.images import augment
from swaptalk_jax.training import diagnosis, optim, sharding, upstream
from swaptalk_jax.training.step import initial, make_step
from swaptalk_jax.weights import bundle, finished, store

SIXTH = '''
"""Brightness: a toy objective on the VQGAN's images."""

import jax.numpy as jnp

from swaptalk_jax.stages import Stage
from swaptalk_jax.stages.rules import Rule


def dark(run, step, values):
    """Pictures that stay dark."""
    return "too dark: raise config.optimizer.default.lr" if step == 3 else None


class BrightnessStage(Stage):
    """params: light."""

    view = "images"
    frozen = ("expert",)
    bundled, file = ("light",), "brightness"
    learns = "loss/light"
    worth = ("val/light", -1, 0.1)
    rules = (Rule(dark),)

    def __init__(self, config, networks, metadata=None):
        super().__init__(config, networks, metadata)
        self.light = self.build("light")

    def init(self, rng, batch):
        """Parameters."""
        return {"light": self.light.init(rng, batch["image"])["params"]}

    def loss(self, params, frozen, batch, rng, step):
        """Distance from white."""
        image = self.light.apply({"params": params["light"]}, batch["image"])
        loss = jnp.mean(jnp.abs(1.0 - image))
        return loss, ({"loss/light": loss}, {})


STAGE = BrightnessStage
'''


class Light(nn.Module):
    """Adds a learned number to images."""

    start: float = 0.0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, image):
        return image + self.param("light", nn.initializers.constant(self.start), ())


@pytest.fixture
def sixth(tmp_path, monkeypatch):
    """The toy stage's file beside the others, and its network by name."""
    folder = tmp_path / "stages"
    folder.mkdir()
    (folder / "brightness.py").write_text(textwrap.dedent(SIXTH))
    monkeypatch.setattr(stages, "__path__", [*stages.__path__, str(folder)])
    monkeypatch.setitem(registry.MODELS, "light", [Light])
    stages.registered.cache_clear()
    yield
    stages.registered.cache_clear()
    sys.modules.pop("swaptalk_jax.stages.brightness", None)


def config_of_the_sixth():
    c = common.config("brightness", "micro")
    c.frozen = {"expert": "somewhere"}
    c.model = {"light": {"network": "Light", "start": 0.25}}
    c.train.update(steps=10, batch_size=2)
    return c


def test_the_stages_stand_in_the_order_in_which_they_need_one_another(sixth):
    assert list(stages.registered()) == [
        "identity",
        "vqgan",
        "expert",
        "swap",
        "brightness",
        "sync",
    ]
    with pytest.raises(errors.RunError, match="'blur': one of identity, vqgan"):
        stages.named("blur")


def test_a_sixth_stage_is_trained_diagnosed_bundled_and_reported_without_an_edit(sixth, tmp_path):
    config, images = config_of_the_sixth(), {"image": jnp.zeros((2, 4, 4, 3))}
    found = upstream.bundled(sync.get_config("micro"), stages.bundled())
    assert found["brightness"] == "runs/micro/brightness"
    stage = stages.make(config, {"expert": object()})
    params = stage.init(jax.random.key(0), images)
    tx = optim.optimizer(config.optimizer, 10, 4, params)
    state = initial(stage, tx, config, jax.random.key(0), images)
    split = sharding.Split(2, sharding.make_mesh(config.mesh))
    state, metrics = jax.jit(make_step(stage, tx, config, split))(state, {}, images)
    assert float(metrics["loss/light"]) == pytest.approx(0.75)
    assert float(state.params["light"]["light"]) > 0.25

    run = diagnosis.Diagnosis(config)
    told = [line for step in (1, 2, 3) for line in run.step(step, {"loss/light": 0.7})]
    assert told == ["too dark: raise config.optimizer.default.lr"]
    assert run.evaluation(5, {"val/light": 0.5}) == [] and run.best[0] == -0.5

    runs = tmp_path / "runs"
    random_bundle.train(runs, stages=("vqgan", "identity", "expert", "swap", "sync"))
    plain = json.loads(config.to_json())
    store.save_network(runs / "brightness", jax.device_get(state.params), plain)
    parts = stages.bundled()
    assert parts["brightness"] == ("brightness", ("light",))
    made = bundle.export(random_bundle.folders(runs), tmp_path / "bundle", parts)
    networks, read = bundle.load(tmp_path / "bundle")  # which imports no stage
    assert read == made and read["model"]["light"]["start"] == 0.25
    assert float(networks["light"]["light"]) == float(state.params["light"]["light"])

    row = json.dumps({"step": 1, "loss/light": 0.7}) + "\n"
    (runs / "brightness" / "metrics.jsonl").write_text(row)
    assert "<h3>brightness</h3>" in report._curves(runs, read["steps"])


def test_a_stage_without_its_frozen_network_is_refused_in_one_line():
    with pytest.raises(errors.CheckpointError, match="swap needs config.frozen.vqgan"):
        stages.make(swap.get_config("micro"), {})
    c = vqgan.get_config("micro")
    assert stages.make(c, {"recogniser": None}).perceptual is None


def test_sound_around_a_frame_has_to_last_as_long_as_a_window():
    c = sync.get_config("micro")
    c.data.context = 7
    with pytest.raises(errors.RunError, match="config.data.context = 7, config.data.window = 5"):
        stages.named("sync").check(c)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"sync": 0.1, "frames": 3}, "config.loss.frames = 3, config.loss.sync = 0.1: one of them"),
        ({"swapped": 2}, "config.loss.swapped = 2 needs config.frozen.swap: give the folder"),
    ],
)
def test_a_loss_of_lips_that_cannot_be_had_is_refused_in_one_line(fields, words):
    c = sync.get_config("micro")
    c.loss.update(fields)
    with pytest.raises(errors.RunError, match=words):
        stages.named("sync").check(c)


class Numbers:
    """A VQGAN whose codes are its embeddings."""

    def apply(self, params, x, method):
        return x[..., 0].astype(int) if method == "nearest" else x[..., None] * jnp.ones(2)


class Sum:
    """A swap whose result tells both faces."""

    def apply(self, params, source, target):
        return target + 100.0 * source


def test_lips_are_learned_on_some_frames_and_on_swapped_faces():
    c = sync.get_config("micro")
    frozen = {"vqgan": Numbers(), "expert": None, "swap": Sum()}
    stage, nets = stages.make(c, frozen), dict.fromkeys(frozen)
    window, place = 10 * jnp.arange(3), jnp.ones((2, 2), int)
    batch = {
        "codes": (window[:, None] + jnp.arange(5))[..., None, None] * place,
        "reference": (window + 5)[:, None, None] * place,
        "audio": (window[:, None] + jnp.arange(5))[..., None] * jnp.ones(2 * c.data.context),
    }

    def told(*options):
        return [
            x.reshape(3, -1, *x.shape[1:])[..., 0, 0] for x in stage.frames(nets, batch, *options)
        ]

    target, reference, sound = told(3)
    np.testing.assert_array_equal(sound, [[0, 2, 4], [10, 12, 14], [20, 22, 24]])
    np.testing.assert_array_equal(target[..., 0], sound)
    np.testing.assert_array_equal(reference[..., 0], [[5] * 3, [15] * 3, [25] * 3])
    target, reference, heard = told(3, 2)
    np.testing.assert_array_equal(heard, sound)
    swapped = np.array([1500, 2500, 0])  # by the next window's reference; the last one is left
    np.testing.assert_array_equal(target[..., 0], sound + swapped[:, None])
    np.testing.assert_array_equal(reference[:, 0, 0], [1505, 2515, 25])


@dataclasses.dataclass
class Doubled:
    """A frozen network that no stage opened: it is handed over."""

    name: str = "expert"


def test_stages_open_no_files(monkeypatch):
    monkeypatch.setattr(Path, "read_text", lambda *_: pytest.fail("a file was opened"))
    monkeypatch.setattr(finished.store, "load_network", lambda *_: pytest.fail("a file was opened"))
    frozen = {
        slot: Doubled(slot) for slot in ("vqgan", "recogniser", "expert", "perceptual", "swap")
    }
    for module in (identity, vqgan, swap, sync):
        stage = stages.make(module.get_config("micro"), frozen, {"identities": ["ann"] * 3})
        assert set(stage.networks) == {*stage.frozen, *stage.optional}


# Restarted codes.


def test_a_restarted_row_moves_as_a_row_of_a_new_run_does():
    params = {"net": {"book": jnp.zeros((3, 2)), "bias": jnp.zeros(2)}, "age": jnp.zeros(3)}
    groups = ConfigDict({"default": common.adam(0.1, clip=1.0), "constant": ("age",)})
    tx = optim.optimizer(groups, 10, 4, params)
    grads = jax.tree.map(jnp.ones_like, params)
    state = tx.update(grads, tx.init(params), params)[1]
    masks = {"net": {"book": jnp.array([False, True, False])}}
    forgotten = jax.jit(lambda s: optim.forget(tx, s, params, masks))(state)
    before, after = jax.tree.leaves(state), jax.tree.leaves(forgotten)
    books = [(a, b) for a, b in zip(before, after, strict=True) if a.shape == (3, 2)]
    assert len(books) == 2  # both moments
    for a, b in books:
        assert (b[1] == 0).all() and (a[1] != 0).any()
        np.testing.assert_array_equal(b[::2], a[::2])
    others = [(a, b) for a, b in zip(before, after, strict=True) if a.shape != (3, 2)]
    for a, b in others:
        np.testing.assert_array_equal(a, b)
    still = jax.tree.map(jnp.zeros_like, params)
    moved = tx.update(still, forgotten, params)[0]["net"]["book"]
    assert (moved[1] == 0).all() and (moved[0] != 0).all()  # the old code's momentum is gone
    assert optim.forget(tx, state, params, {}) is state


def test_running_averages_find_both_codes_of_a_cell():
    config = vqgan.get_config("micro")
    config.model.vqgan.depth = 2
    frozen = {slot: Doubled(slot) for slot in ("recogniser", "perceptual")}
    stage = stages.make(config, frozen, {"identities": ["ann"] * 3})
    count, dim = config.model.vqgan.depth * config.model.vqgan.codes, config.model.vqgan.embed_dim
    book, age = jnp.full((count, dim), 1e-3), jnp.full(count, config.loss.restart_after)
    params = {
        "vqgan": {f"codebook_{half}": book for half in ("upper", "lower")},
        "code_age": {half: age for half in ("upper", "lower")},
        "code_means": {
            half: {"count": jnp.ones(count), "sum": book} for half in ("upper", "lower")
        },
    }
    z = jax.random.normal(jax.random.key(0), (2, 16, 16, dim)) ** 3  # 256 vectors a half

    @jax.jit
    def step(params, key):
        own = {"params": params["vqgan"]}
        codes = stage.vqgan.apply(own, z, method="nearest")
        z_q = stage.vqgan.apply(own, codes, method="lookup")
        moved, _ = stage.after_update(params, {"codes": codes, "z": z}, key)
        return moved, jnp.mean(jnp.square(z - z_q))

    errors = []
    for key in jax.random.split(jax.random.key(1), 120):
        params, error = step(params, key)
        errors.append(float(error))
    alone = kmeans_error(np.asarray(z[:, :8]).reshape(-1, dim), config.model.vqgan.codes)
    assert errors[-1] < 0.7 * alone < errors[0]


def kmeans_error(z, count):
    """Mean squared error of vectors [n d] on `count` codes, one each: Lloyd's algorithm."""
    codes = z[:count]
    for _ in range(30):
        nearest = ((z[:, None] - codes) ** 2).sum(-1).argmin(-1)
        codes = np.stack(
            [z[nearest == i].mean(0) if (nearest == i).any() else codes[i] for i in range(count)]
        )
    return ((z - codes[nearest]) ** 2).mean()


# The recogniser's augmentation.


def test_images_are_augmented_as_the_recogniser_sees_them(monkeypatch):
    seen = []

    def watched(rng, image):
        seen.append(image.shape)
        return augment(rng, image)

    monkeypatch.setattr("swaptalk_jax.stages.identity.augment", watched)
    c = identity.get_config("micro")
    stage = stages.make(c, {}, {"identities": ["ann", "bob"]})
    image = np.random.default_rng(0).integers(0, 255, (2, 32, 32, 3), np.uint8)
    batch = {"image": image, "identity": np.zeros(2, np.int32)}
    params = jax.eval_shape(stage.init, jax.random.key(0), batch)
    jax.eval_shape(stage.loss, params, {}, batch, jax.random.key(0), 0)
    assert seen == [(2, 24, 24, 3)]


def test_a_face_that_is_cut_already_has_the_embedding_of_its_crop():
    network = Recogniser(stages=(1,), width=8, embed_dim=8, input_size=8)
    image = np.random.default_rng(0).uniform(-1, 1, (2, 16, 16, 3)).astype(np.float32)
    params = network.init(jax.random.key(0), image)
    face = network.cut(image)
    np.testing.assert_array_equal(face, cut(image, network.box, 8))
    whole, own = network.apply(params, image), network.apply(params, face, cut=False)
    np.testing.assert_allclose(whole, own, atol=1e-6)

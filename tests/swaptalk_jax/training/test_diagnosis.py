"""Provoked failures are named with their field, by short trainings and by curves; health is not."""

import itertools
import math

import jax
import ml_collections
import numpy as np
import pytest

from swaptalk_jax import stages
from swaptalk_jax.configs import common, expert, identity, swap, sync, vqgan
from swaptalk_jax.models import registry
from swaptalk_jax.training import diagnosis, optim, sharding
from swaptalk_jax.training.step import initial, make_step
from swaptalk_jax.weights import finished, store

CONFIGS = {"identity": identity, "vqgan": vqgan, "expert": expert, "swap": swap, "sync": sync}
GRID, WIDTH = (16, 16), 8  # micro's codes of a picture, and sound as wide as there are kinds of it


def config_of(name, size="tiny", steps=1000):
    c = CONFIGS[name].get_config(size)
    c.train.steps = steps
    return c


def told(config, rows, first=1):
    """[(step, finding)] of the metrics of consecutive steps."""
    run = diagnosis.Diagnosis(config)
    return [(s, line) for s, row in enumerate(rows, first) for line in run.step(s, row)]


# Curves.


def healthy(name, steps=300):
    """Rows as runs of tiny and small had them; each step differs by chance, as batches do."""
    rng = np.random.default_rng(0)

    def falling(first, last):
        x = np.linspace(0.0, 5.0, steps)
        return (last + (first - last) * np.exp(-x)) * rng.lognormal(0.0, 0.3, steps)

    curves = {"gradient_norm": falling(7.0, 1.0)}
    if name == "vqgan":
        on = np.arange(steps) >= steps * 8 // 10
        curves["gradient_norm"] = np.where(on, 93.0, curves["gradient_norm"])
        curves |= {"loss/rec": falling(1.5, 0.2), "loss/disc": np.where(on, 0.7, 0.0)}
        curves |= {"loss/adv": np.where(on, -0.35, 0.0), "adv_weight": np.where(on, 5e-3, 0.0)}
        for half in ("upper", "lower"):
            curves[f"perplexity_{half}"] = 400.0 - falling(350.0, 10.0).clip(max=390.0)
    elif name == "expert":
        curves |= {"loss/bce": falling(0.72, 0.2), "accuracy": 1.0 - falling(0.5, 0.03)}
    else:
        curves[stages.named(name).learns] = falling(0.4, 0.1)
    curves |= {"input_wait": np.repeat(rng.random(math.ceil(steps / 50)) * 0.2, 50)[:steps]}
    names = list(curves)
    return [dict(zip(names, row, strict=True)) for row in zip(*curves.values(), strict=True)]


def with_curves(name, **curves):
    """The healthy rows with other curves, `f(step)` each, in place of theirs."""
    return [
        row | {k.replace("__", "/"): f(step) for k, f in curves.items()}
        for step, row in enumerate(healthy(name), 1)
    ]


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("first", [1, 37])
def test_a_run_in_order_is_left_in_peace_also_after_a_restart(name, first):
    rows = healthy(name)[first - 1 :]
    assert told(config_of(name, steps=300), rows, first) == []


FAILURES = {
    "codebook": (
        "vqgan",
        {"perplexity_lower": lambda s: 400.0 if s < 100 else 60.0},
        ("lower codebook collapses", "400 at best", "config.loss.restart_after, now 20"),
    ),
    "few codes": ("vqgan", {"perplexity_upper": lambda s: 9.0}, ("upper codebook", "of 512")),
    "critic wins": (
        "vqgan",
        {"loss__disc": lambda s: 0.01 if s > 240 else 0.0, "loss__adv": lambda s: s / 100},
        ("always wins", "config.optimizer.discriminator.lr (now 0.0002)"),
    ),
    "critic lost": ("vqgan", {"loss__disc": lambda s: 9.0}, ("discriminator diverges",)),
    "critic mute": ("vqgan", {"adv_weight": lambda s: 0.05e4}, ("at its bound",)),
    "stuck": ("expert", {"loss__bce": lambda s: 0.69}, ("ln 2", "config.loss.contrast, now 0.5")),
    "no input": (
        "sync",
        {"input_wait": lambda s: 0.5 + (s - 1) // 50 / 100},
        ("50%", "config.data.workers, now 0", "config.data.resident=True", "local disk"),
    ),
    "no pictures": ("identity", {"input_wait": lambda s: 0.4 + s // 50 / 100}, ("workers",)),
    "divergence": (
        "swap",
        {"loss__proxy": lambda s: 0.4 + s / 100},
        ("loss/proxy", "config.optimizer.default.muon_lr (now 0.01)"),
    ),
    "explosion": (
        "sync",
        {
            "loss__code": lambda s: 0.1 if s < 150 else 0.15,
            "gradient_norm": lambda s: 1.0 if s < 150 else 1e3,
        },
        (
            "gradient explodes",
            "and was 1, while loss/code rises",
            "set config.optimizer.default.clip=1",
        ),
    ),
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_is_told_once_with_its_field(name):
    stage, curves, words = FAILURES[name]
    config = config_of(stage, steps=300)
    if name.startswith("critic"):  # which tiny has not
        config.loss.adversarial_start_share = 0.8
    ((_, line),) = told(config, with_curves(stage, **curves))
    assert all(word in line for word in words), line
    assert "\n" not in line
    if name == "no pictures":
        assert "resident" not in line


def test_a_finding_comes_again_after_it_was_away():
    rates = {"loss__bce": lambda s: 0.3 if 150 < s < 250 else 0.7}
    steps = [s for s, _ in told(config_of("expert"), with_curves("expert", **rates) * 2)]
    assert len(steps) == 2 and steps[0] < 150 and steps[1] > 300


def evaluations(name, values, rows=None, steps=1000):
    """Findings of evaluations, one each 50 steps of training."""
    config = config_of(name, steps=steps)
    run, found = diagnosis.Diagnosis(config), []
    rows = rows or healthy(name, 50 * len(values))
    for i, value in enumerate(values, 1):
        for s in range(50 * (i - 1), 50 * i):
            run.step(s + 1, rows[s])
        found += [(i, line) for line in run.evaluation(50 * i, value)]
    return found


def test_a_copy_of_the_target_or_the_reference_is_told_but_not_at_the_start():
    copies = [{"val/proxy": 0.16, "val/proxy_unchanged": 0.16}] * 6
    ((at, line),) = evaluations("swap", copies)
    assert at == 4 and "no better than the target" in line and "training people alone" in line
    better = [{"val/proxy": 0.12, "val/proxy_unchanged": 0.16}] * 6
    assert evaluations("swap", better) == []
    slow = [{"loss/code": 0.2, "gradient_norm": 1.0}] * 300
    same = [{"val/code": 0.21, "val/code_unchanged": 0.2}] * 6
    ((_, line),) = evaluations("sync", same, slow)
    assert "the reference" in line and "raise config.optimizer.default.muon_lr" in line


def test_overfitting_is_told_when_unseen_people_fare_worse_for_long():
    worth = [{"val/psnr": v} for v in (24.0, 26.0, 25.9, 25.0, 25.2, 25.1, 25.0)]
    ((at, line),) = evaluations("vqgan", worth)
    assert at == 5 and "val/psnr was 26" in line and "config.train.steps" in line
    assert evaluations("vqgan", worth[:2] + [{"val/psnr": 25.9}] * 9) == []
    assert evaluations("vqgan", worth, [{"loss/rec": 0.3}] * 350) == []  # it learns nothing more
    ((_, line),) = evaluations("expert", [{"val/accuracy": 0.55}] * 6)
    assert "by heart" in line and "0.55 on unseen people" in line


@pytest.mark.parametrize(
    "before, broken, words",
    [
        (
            [1, 1, 400],
            {"loss/rec": math.nan, "loss": math.nan},
            ("loss/rec (nan)", "from 1 to 400"),
        ),
        ([1, 1, 1], {"gradient_norm": math.inf}, ("way back", "config.precision=float32")),
        ([1, 1, 1], {"loss/disc": math.inf}, ("loss/disc", "config.optimizer.discriminator.lr")),
        ([], {"loss/rec": math.nan}, ("as early as step 1", "config.optimizer.default.warmup")),
    ],
)
def test_what_is_not_finite_has_a_likely_cause(before, broken, words):
    fine = {"loss": 1.0, "loss/rec": 1.0, "loss/disc": 0.5, "gradient_norm": 1.0}
    rows = [(90 + i, fine | {"gradient_norm": float(g)}) for i, g in enumerate(before)]
    rows.append(((93 if before else 1), fine | broken))
    text = diagnosis.Diagnosis(config_of("vqgan")).not_finite(rows[-1][0], rows)
    assert all(word in text for word in words), text


def test_a_rate_that_is_no_number_is_named():
    config = config_of("identity")
    config.optimizer.default.lr = math.nan
    text = diagnosis.Diagnosis(config).not_finite(2, [(2, {"loss/margin": math.nan})])
    assert "config.optimizer.default.lr is nan" in text


# Real trainings of the micro networks, on data in memory.


@pytest.fixture(scope="module")
def frozen(tmp_path_factory):
    """Folder with an untrained recogniser and VQGAN, as finished runs leave them."""
    root = tmp_path_factory.mktemp("frozen")
    jax.config.update("jax_compilation_cache_dir", str(root / "cache"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_disable_most_optimizations", True)
    for name in ("recogniser", "vqgan"):
        fields = CONFIGS["identity" if name == "recogniser" else name].get_config("micro").model
        network = registry.build(name, fields[name])
        params = jax.jit(network.init)(jax.random.key(0), np.zeros((1, 32, 32, 3), np.float32))
        plain = ml_collections.ConfigDict({"model": fields}).to_dict()
        store.save_network(root / name, {name: params["params"]}, plain)
    yield root
    jax.config.update("jax_disable_most_optimizations", False)
    jax.config.update("jax_compilation_cache_dir", None)


def trained(config, frozen, batches):
    """Rows of metrics of a stage's steps on these batches."""
    for name in config.frozen:
        config.frozen[name] = str(frozen / name) if config.frozen[name] else ""
    batches = iter(batches)
    first = next(batches)
    stage = stages.make(config, finished.opened(config))
    shapes = jax.eval_shape(stage.init, jax.random.key(0), first)
    tx = optim.optimizer(config.optimizer, config.train.steps, config.train.batch_size, shapes)
    state = jax.jit(lambda: initial(stage, tx, config, jax.random.key(0), first))()
    split = sharding.Split(len(jax.tree.leaves(first)[0]), sharding.make_mesh(config.mesh))
    step, nets = jax.jit(make_step(stage, tx, config, split)), frozen_params(stage)
    for batch in itertools.islice(itertools.chain([first], batches), config.train.steps):
        state, metrics = step(state, nets, batch)
        yield {name: float(value) for name, value in metrics.items()}


def frozen_params(stage):
    return {slot: network.params() for slot, network in stage.networks.items()}


def pairs(true, size=16):
    """Endless batches: eight kinds of lips, each with a sound of its own, or labels by chance."""
    rng = np.random.default_rng(0)
    lips = rng.integers(0, 32, (WIDTH, 5, *GRID)).astype(np.uint16)
    sounds = np.repeat(np.eye(WIDTH, dtype=np.float32)[:, None], 10, axis=1)
    while True:
        kind, label = rng.integers(WIDTH, size=size), rng.random(size) < 0.5
        heard = np.where(label, kind, (kind + rng.integers(1, WIDTH, size)) % WIDTH)
        label = label if true else rng.random(size) < 0.5
        yield {"codes": lips[kind], "audio": sounds[heard], "label": label.astype(np.float32)}


def pictures(size=4):
    """Endless batches of colour gradients."""
    rng, ramp = np.random.default_rng(0), np.linspace(0, 1, 32)[:, None, None]
    while True:
        a, b = rng.random((2, size, 1, 1, 3))
        image = 255 * (a * ramp + b * ramp.swapaxes(0, 1)) / 2
        yield {"image": image.astype(np.uint8), "identity": np.zeros(size, np.int32)}


@pytest.mark.parametrize("true", [True, False])
def test_an_expert_whose_labels_are_chance_is_stuck_and_another_is_not(frozen, true):
    config = config_of("expert", "micro", steps=120)
    config.optimizer.default = common.adam(2e-3)  # Muon takes long to compile
    found = told(config, trained(config, frozen, pairs(true)))
    if true:
        assert found == []
    else:
        ((step, line),) = found
        assert step == 99 and "stuck" in line and "config.train.batch_size, now 4" in line


@pytest.mark.parametrize("restarts", [True, False])
def test_a_vqgan_without_restarts_collapses(frozen, restarts):
    config = config_of("vqgan", "micro", steps=60)
    config.model.vqgan.codes = 256
    config.loss.adversarial_start_share = 1.0
    if not restarts:
        config.loss.update(restart_after=10**9, codebook_decay=0.0)
    found = told(config, trained(config, frozen, pictures()))
    if restarts:
        assert found == []
    else:
        ((_, line),) = found
        assert "codebook collapses" in line and "config.loss.restart_after, now 1000000000" in line

"""The loop and the stages, on one micro run that all tests here look at."""

import json
import os
import signal
import subprocess
import sys
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from places import ROOT

from data_pipelines.records import kinds, reader
from swaptalk_jax import errors
from swaptalk_jax.benchmarks.steps import measure
from swaptalk_jax.configs import expert, identity, swap, sync, vqgan
from swaptalk_jax.encoding import sets
from swaptalk_jax.training import checkpoints, loop, upstream
from swaptalk_jax.training.setup import Trainer
from swaptalk_jax.weights import finished, store

CONFIGS = {"identity": identity, "vqgan": vqgan, "expert": expert, "swap": swap, "sync": sync}


# Counters without a gradient; and the critic's last bias, on which the two sides of the hinge pull
# equally until a logit passes the margin.
STILL = ("['code_age']['upper']", "['code_age']['lower']", "['logits']['bias']")


@pytest.fixture(scope="session")
def micro(tmp_path_factory):
    """Returns name -> micro config whose data and upstream stages stand, 4 steps each."""
    root = tmp_path_factory.mktemp("micro")
    # Every stage is compiled several times here; the cache leaves one compilation of each, and
    # what is compiled runs a few steps only.
    jax.config.update("jax_compilation_cache_dir", str(root / "cache"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_disable_most_optimizations", True)

    def config(name):
        c = CONFIGS[name].get_config("micro")
        # A schedule that ends with the run would differ between a run's first leg and the whole.
        c.optimizer.default.decay = False
        c.optimizer.default.warmup = 0  # its first step would be of length 0
        if name == "vqgan":
            c.loss.adversarial_start_share = 0.0
        return type(c)(json.loads(c.to_json().replace("runs/micro", str(root))))

    data = upstream.command(config("vqgan"), "data")
    subprocess.run([sys.executable, *data, "--workers=1"], cwd=ROOT, check=True)
    for name in ("identity", "vqgan"):
        loop.train(config(name))
    sets.Encoding(config("vqgan"), root / "codes", batch_size=16).run()
    (root / "codes" / "encode.json").write_text("{}")
    for name in ("expert", "swap", "sync"):
        loop.train(config(name))
    yield config
    jax.config.update("jax_disable_most_optimizations", False)
    jax.config.update("jax_compilation_cache_dir", None)


def leaves(tree):
    return jax.tree.leaves(jax.device_get(tree))


@pytest.mark.parametrize("name", ["identity", "vqgan"])
def test_resumed_run_equals_uninterrupted_bit_for_bit(micro, name, tmp_path):
    config = micro(name)
    whole = store.load_network(config.workdir)[0]
    config.workdir = str(tmp_path)
    config.train.steps = 2
    loop.train(config)
    config.train.steps = 4
    resumed = loop.train(config)
    assert int(resumed.step) == 4
    for a, b in zip(leaves(resumed.params), leaves(whole), strict=True):
        np.testing.assert_array_equal(a, b)
    steps = [json.loads(x)["step"] for x in (tmp_path / "metrics.jsonl").open()]
    assert steps == sorted(steps) and steps[-1] == 4


@pytest.mark.parametrize("name", CONFIGS)
def test_gradients_reach_what_is_trained_and_nothing_else_changes(micro, name):
    run = Trainer(micro(name))
    state = run.new_state()
    frozen = leaves(run.frozen)
    old = jax.device_get(state.params)
    for _, batch in zip(range(6), run.batches.training(0), strict=False):
        state, metrics = run.update(state, batch)
    assert all(np.isfinite(v) for v in jax.device_get(metrics).values())
    unmoved = [
        jax.tree_util.keystr(path)
        for (path, a), b in zip(
            jax.tree_util.tree_leaves_with_path(old), leaves(state.params), strict=True
        )
        if np.array_equal(a, b) and not jax.tree_util.keystr(path).endswith(STILL)
    ]
    assert unmoved == []
    for a, b in zip(frozen, leaves(run.frozen), strict=True):
        np.testing.assert_array_equal(a, b)


def test_microbatches_and_averages_change_nothing_else(micro, tmp_path):
    config = micro("vqgan")
    config.workdir = str(tmp_path)
    config.train.update(steps=2, log_every=1, accumulate=2, ema=0.9)
    config.train.update(profile_step=1, profile_steps=1)
    state = loop.train(config)
    paths = (tmp_path, Path(micro("vqgan").workdir))
    first, whole = (json.loads((p / "metrics.jsonl").read_text().splitlines()[0]) for p in paths)
    assert first["step"] == whole["step"] == 1
    for name in ("loss/rec", "loss/id", "psnr", "loss/codebook", "codes_alive_upper"):
        assert first[name] == pytest.approx(whole[name], rel=1e-4), name
    kept = store.load_network(tmp_path)[0]
    for name, expected in (("vqgan", state.ema), ("discriminator", state.params)):
        for a, b in zip(leaves(kept[name]), leaves(expected[name]), strict=True):
            np.testing.assert_array_equal(a, b)
    moved = leaves(
        jax.tree.map(lambda a, b: jnp.abs(a - b).max(), state.ema["vqgan"], state.params["vqgan"])
    )
    assert max(moved) > 0  # an average is behind what it follows
    # What there is to look at.
    assert any(path.stat().st_size for path in (tmp_path / "profile").rglob("*.xplane.pb"))
    board = b"".join(path.read_bytes() for path in (tmp_path / "tensorboard").iterdir())
    for name in ("codes/upper", "code_age/lower", "samples", "speed/input_wait"):
        assert name.encode() in board, name
    assert json.loads((tmp_path / "speed.jsonl").read_text())["steps_per_second"] > 0
    # A run goes on with its averages.
    config.train.steps = 3
    assert int(loop.train(config).step) == 3


def test_the_benchmark_times_loader_and_step_alone_and_together(micro):
    rows, share, compiling, costs = measure(micro("identity"), steps=4, rounds=2)
    assert rows.keys() == {"loader alone", "step alone", "loader + step"}
    assert all(seconds > 0 for seconds in rows.values()) and 0 <= share < 1
    assert compiling > 0 and costs.flops > 0 and costs.bytes > 0


def test_swap_losses_vanish_at_the_truth(micro):
    stage, frozen, batch = loaded(micro("swap"))
    z = stage.lookup(frozen, batch["result"])
    embedding = stage.recogniser.apply(frozen["recogniser"], stage.decode(frozen, z))
    own = {**batch, "id_source": embedding, "id_result": embedding}
    np.testing.assert_array_equal(stage.proxy(frozen, batch, z), 0.0)
    np.testing.assert_allclose(stage.identities(frozen, own, z), 0.0, atol=1e-5)
    assert np.all(np.asarray(stage.proxy(frozen, batch, z + 1.0)) > 0.5)
    assert np.all(np.asarray(stage.identities(frozen, own, 3.0 * z[::-1])) > 1e-4)


def test_sync_code_loss_vanishes_at_the_truth(micro):
    stage, frozen, batch = loaded(micro("sync"))
    codes = batch["codes"].reshape(-1, *batch["codes"].shape[2:])
    target = stage.vqgan.apply(frozen["vqgan"], codes, method="lookup")
    truth = target[:, target.shape[1] // 2 :]

    def told(lower):
        """Code errors of these lips: of the loss, and of each frame in the evaluation."""
        stage.generator = types.SimpleNamespace(lips=lambda *_: (lower, jnp.zeros(1)))
        _, (metrics, _) = stage.loss({}, frozen, batch, None, 0)
        return metrics["loss/code"], stage.evaluate({}, frozen, batch)["code"]

    for error in told(truth):
        np.testing.assert_array_equal(error, 0.0)
    for error in told(truth + 0.1):
        assert np.all(np.asarray(error) > 0)


def loaded(config):
    """(stage, frozen, batch) of a config."""
    run = Trainer(config)
    return run.stage, run.frozen, run.example


def test_codes_of_another_vqgan_are_refused_by_name(micro, tmp_path):
    config = micro("swap")
    params, plain = store.load_network(config.frozen.vqgan)
    params["vqgan"]["codebook_upper"] = params["vqgan"]["codebook_upper"] + 1.0
    store.save_network(tmp_path / "other", params, plain)
    config.frozen.vqgan = str(tmp_path / "other")
    config.workdir = str(tmp_path / "swap")
    with pytest.raises(kinds.RecordError) as error:
        loop.train(config)
    made = reader.metadata(config.data.root, "swaps")["fingerprint"]
    assert made in str(error.value) and "encode" in str(error.value)


@pytest.mark.parametrize("decay", [0.0, 0.75])
def test_dead_codes_restart_from_the_batch_and_others_follow_it(micro, decay):
    config = micro("vqgan")
    config.loss.codebook_decay = decay
    config.model.vqgan.depth = 1
    run = Trainer(config)
    params = jax.device_get(run.new_state().params)
    codes, width = params["vqgan"]["codebook_upper"].shape
    params["code_age"] = {h: np.full(codes, 100.0) for h in ("upper", "lower")}
    z = np.arange(4 * width, dtype=np.float32).reshape(1, 2, 2, width) + 5.0
    aux = {"codes": jnp.zeros((1, 2, 2), jnp.int32), "z": z}
    after, renewed = run.stage.after_update(params, aux, jax.random.key(0))
    for half, seen in (("upper", z[0, 0]), ("lower", z[0, 1])):
        before, book = params["vqgan"][f"codebook_{half}"], after["vqgan"][f"codebook_{half}"]
        if decay:  # code 0 stood for one cell a step until now, and for two in this one
            mean = (decay * before[0] + (1 - decay) * seen.sum(0)) / (decay + (1 - decay) * 2)
            np.testing.assert_allclose(book[0], mean, rtol=1e-5)
        else:
            np.testing.assert_array_equal(book[0], before[0])
        rows = {tuple(row) for row in seen}
        assert all(tuple(row) in rows for row in np.asarray(book)[1:])
        np.testing.assert_array_equal(after["code_age"][half], 0.0)
        if not decay:  # else codes have no gradient, and nothing is known of the old ones
            assert list(renewed["vqgan"][f"codebook_{half}"]) == [False] + [True] * (codes - 1)
    assert bool(renewed) == (decay == 0)


@pytest.mark.parametrize("decay", [0.0, 0.75])
def test_a_run_starts_from_the_vqgan_that_its_config_names(micro, tmp_path, decay, capsys):
    config = micro("vqgan")
    config.loss.codebook_decay = decay
    config.init_from = config.workdir
    given = store.load_network(config.workdir)[0]["vqgan"]
    run = Trainer(config)
    params = jax.device_get(run.new_state().params)
    jax.tree.map(np.testing.assert_array_equal, params["vqgan"], given)
    for half in ("upper", "lower"):
        assert not params["code_age"][half].any()  # they came to stay
        if decay:
            book = given[f"codebook_{half}"]
            np.testing.assert_array_equal(params["code_means"][half]["sum"], book)

    config.model.vqgan.codes = 48
    params = jax.device_get(Trainer(config).new_state().params)
    assert params["vqgan"]["codebook_upper"].shape[0] == 48 * config.model.vqgan.depth
    assert params["code_age"]["upper"].all()  # these may restart as encoder outputs
    kernel = given["encoder"]["to_z"]["kernel"]
    np.testing.assert_array_equal(params["vqgan"]["encoder"]["to_z"]["kernel"], kernel)
    assert "as before: codebook_lower, codebook_upper" in capsys.readouterr().out

    config.init_from = str(tmp_path)
    store.save_network(tmp_path, {"vqgan": {"other": np.zeros(3)}}, {})
    with pytest.raises(errors.CheckpointError, match="nothing in it fits"):
        run.stage.start(params, finished.starting_point(config))


@pytest.mark.parametrize("decay", [0.0, 0.75])
def test_codes_have_the_gradient_of_eq_4_unless_they_are_averages(micro, decay):
    config = micro("vqgan")
    config.loss.codebook_decay = decay
    run = Trainer(config)
    params = run.new_state().params
    trained = {"codebook_upper": params["vqgan"]["codebook_upper"]}

    def loss(trained):
        own = {**params, "vqgan": {**params["vqgan"], **trained}}
        return run.stage.loss(own, run.frozen, run.example, jax.random.key(0), 0)[0]

    gradient = jax.jit(jax.grad(loss))(trained)["codebook_upper"]
    assert bool(jnp.any(gradient != 0)) == (decay == 0)


def test_nan_stops_with_the_step_and_what_led_there(micro, tmp_path, monkeypatch):
    config = micro("identity")
    config.workdir = str(tmp_path)
    config.optimizer.default.lr = float("nan")
    with pytest.raises(errors.RunError) as error:
        loop.train(config)
    text = str(error.value)
    assert "step 2" in text and "step 1:" in text and "loss" in text
    assert checkpoints.Checkpoints(tmp_path).latest() is None


def test_a_folder_of_another_config_is_refused(micro):
    config = micro("identity")
    config.model.recogniser.width = 16
    with pytest.raises(errors.CheckpointError, match="model"):
        loop.train(config)


def test_a_mesh_that_does_not_fit_the_devices_is_refused(micro):
    config = micro("identity")
    config.train.accumulate = 3  # does not divide the batch of 4, and need not
    config.mesh = {"data": 3}
    with pytest.raises(errors.RunError, match="does not fit 1 devices"):
        Trainer(config)


def test_missing_upstream_names_the_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # nothing of a user's own runs is here
    config = sync.get_config("small")
    with pytest.raises(errors.RunError, match="python -m data_pipelines.build"):
        upstream.prepare(config)


# Eight devices have to be asked for before JAX starts.
ANY_BATCH = """
import json, sys, jax
from ml_collections import ConfigDict
from swaptalk_jax.training.setup import Trainer

jax.config.update("jax_disable_most_optimizations", True)
config, told = ConfigDict(json.loads(sys.argv[1])), []
for devices in (1, 8):
    run = Trainer(config, jax.devices()[:devices])
    state, stream = run.new_state(), run.batches.training(0)
    rows = []
    for _ in range(3):
        state, metrics = run.update(state, next(stream))
        rows.append({k: float(v) for k, v in metrics.items()})
    batch = next(run.batches.validation())
    values = run.evaluate(state.best, run.frozen, batch)
    rows.append({k: float((v * batch["mask"]).sum()) for k, v in values.items()})
    told.append({"rows": rows, "flops": run.costs().flops})
print(json.dumps(told))
"""
PLAIN = {"model.unet.attention_levels": (0,), "optimizer.default.muon_lr": 0.0}
CUT = {"sharding.params": True, "sharding.opt_state": True, "sharding.min_size": 1}


@pytest.mark.parametrize(
    "name, size, share, change",
    [
        ("vqgan", 12, 0.17, {}),  # the paper's batches, on its eight devices
        ("sync", 20, 0.16, {"model.unet.multipliers": (1,)} | PLAIN),
        ("expert", 13, 0.35, {"loss.contrast": 0.5, "data.resident": True} | CUT),
        ("identity", 5, 0.42, {"train.accumulate": 2, "train.eval_batch_size": 3}),
    ],
)
def test_a_batch_of_any_size_trains_on_eight_devices_as_on_one(micro, name, size, share, change):
    config = micro(name)
    config.update_from_flattened_dict({"train.batch_size": size} | change)
    done = subprocess.run(
        [sys.executable, "-c", ANY_BATCH, config.to_json()],
        cwd=ROOT,
        env=os.environ | {"JAX_NUM_CPU_DEVICES": "8", "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    one, eight = json.loads(done.stdout.splitlines()[-1])
    for row, expected in zip(eight["rows"], one["rows"], strict=True):
        assert row == pytest.approx(expected, rel=1e-3)
        if "loss" in row:
            assert row["loss"] == pytest.approx(expected["loss"], rel=2e-5)
    # No device does the work of others: it has an example of 5 in each of two microbatches, or 2 of
    # 13, or so; what Muon costs (of the expert a fifth) does not depend on the batch.
    assert eight["flops"] < share * one["flops"]


def test_two_processes_train_as_one(micro, tmp_path):
    config = micro("identity")  # batches of 4: the second process has one example, for 3 devices
    command = [
        *(sys.executable, "launch/local.py", "--processes=2", "--devices_per_process=3"),
        *("--restarts=0", "--", sys.executable, "-m", "swaptalk_jax.train"),
        *("--config=configs/identity.py:micro", f"--config.workdir={tmp_path}"),
        *(f"--config.data.root={config.data.root}", "--config.needs=()"),
        *("--config.optimizer.default.decay=False", "--config.optimizer.default.warmup=0"),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    alone = (Path(config.workdir) / "metrics.jsonl").read_text().splitlines()
    rows = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert len(rows) == len(alone) >= 3
    for row, expected in zip(rows, alone, strict=True):
        assert json.loads(row) == pytest.approx(json.loads(expected), rel=1e-3)


@pytest.mark.parametrize("sent, code", [(signal.SIGINT, 130), (signal.SIGTERM, 75)])
def test_a_signal_saves_and_says_how_to_go_on(micro, tmp_path, sent, code):
    config = micro("identity")
    command = [
        *(sys.executable, "-m", "swaptalk_jax.train", "--config=configs/identity.py:micro"),
        *(f"--config.workdir={tmp_path}", f"--config.data.root={config.data.root}"),
        *("--config.needs=()", "--config.train.steps=100000", "--config.train.log_every=1"),
        f"--config.compile_cache={config.compile_cache}",
    ]
    run = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    for line in run.stdout:
        if "steps/s" in line:
            run.send_signal(sent)
            break
    rest, _ = run.communicate(timeout=120)
    assert run.returncode == code, rest
    assert "the same command goes on" in rest and "Traceback" not in rest
    assert checkpoints.Checkpoints(tmp_path).latest() > 0

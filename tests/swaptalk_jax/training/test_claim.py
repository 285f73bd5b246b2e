"""Whose run a folder holds."""

import json

import pytest

from swaptalk_jax import errors
from swaptalk_jax.configs import identity, sync, vqgan
from swaptalk_jax.training import claim, loop
from swaptalk_jax.weights import store


@pytest.fixture
def config(tmp_path):
    c = sync.get_config("micro")
    c.root = str(tmp_path / "runs")
    return c


def finish(config):
    """Leaves what a finished run leaves."""
    noted = claim.claim(config) | {"vqgan_fingerprint": "0", "sound_fingerprint": "log_mel"}
    store.save_network(config.workdir, {}, noted)


def test_what_changes_nothing_may_change(config, tmp_path):
    claim.claim(config)
    config.data.workers, config.data.eval_examples, config.distributed = 3, 1, True
    config.train.update(eval_every=1, save_every=1, log_every=1, keep=9, hang_seconds=1)
    config.mesh, config.precision, config.remat = {"data": 1}, "float32", True
    claim.claim(config)
    (tmp_path / "link").symlink_to(tmp_path / "runs")
    config.data.root = str(tmp_path / "runs" / "x" / ".." / "codes")
    config.frozen.vqgan = str(tmp_path / "link" / "vqgan")
    claim.claim(config)
    finish(config)
    assert claim.ended(config)
    (tmp_path / "runs").rename(tmp_path / "moved")  # a whole root
    config.root = str(tmp_path / "moved")
    config.data.root, config.frozen.vqgan = f"{config.root}/codes", f"{config.root}/vqgan"
    assert claim.ended(config)
    claim.claim(config)


@pytest.mark.parametrize("done", [False, True])
def test_another_config_is_refused_in_one_line_that_names_what_differs(config, done):
    finish(config) if done else claim.claim(config)
    look = claim.ended if done else claim.claim
    for change in (
        {"loss.mouth": 3.0},
        {"optimizer.default.muon_lr": 0.5},
        {"frozen.expert": "/another/expert"},
        {"data.window": 3, "seed": 7},
        {"train.ema": 0.5},
        {"train.steps": 2},  # the rates fall with the steps
        {"train.steps": 9},
    ):
        other = config.copy_and_resolve_references()
        was = json.loads(other.to_json())
        other.update_from_flattened_dict(change)
        with pytest.raises(errors.CheckpointError) as error:
            look(other)
        (line,) = str(error.value).splitlines()
        for name, value in change.items():
            before = was
            for part in name.split("."):
                before = before[part]
            assert f"{name} was {before} and is {value}" in line
        assert "--config.workdir" in line and "delete" not in line
    look(config)


def test_more_steps_are_a_run_to_go_on_with_where_no_schedule_hangs_on_them(config):
    config.optimizer.default.decay = False
    finish(config)
    assert claim.ended(config)
    config.train.steps = 9
    assert not claim.ended(config)
    claim.claim(config)
    config.train.steps = 2
    with pytest.raises(errors.CheckpointError, match="train.steps was 4 and is 2;"):
        claim.ended(config)
    c = vqgan.get_config("micro")
    c.workdir, c.optimizer.default.decay = f"{config.root}/vqgan", False
    finish(c)
    c.train.steps = 9
    share = "train.steps was 4 and is 9 .loss.adversarial_start_share hangs on it"
    with pytest.raises(errors.CheckpointError, match=share):
        claim.ended(c)


def test_a_run_goes_on_with_another_batch_and_a_finished_one_is_another(config, capsys):
    claim.claim(config)
    config.train.batch_size = 6
    claim.claim(config)
    assert "batches of 6 from here on, of 2 before" in capsys.readouterr().out
    finish(config)
    config.train.batch_size = 2
    with pytest.raises(errors.CheckpointError, match="train.batch_size was 6 and is 2"):
        claim.ended(config)


def test_steps_below_the_saved_one_are_one_line(tmp_path):
    c = identity.get_config("micro")
    c.workdir, c.optimizer.default.decay = str(tmp_path), False
    (tmp_path / "checkpoints" / "8").mkdir(parents=True)
    with pytest.raises(errors.CheckpointError, match="at step 8, past config.train.steps = 4; "):
        claim.claim(c)


def test_a_command_has_nothing_to_do_for_the_same_config_alone(config, capsys):
    finish(config)
    loop.run(config)
    assert "has its 4 steps; nothing to do" in capsys.readouterr().out
    config.loss.code = 2.0
    with pytest.raises(errors.CheckpointError, match="loss.code was 1.0 and is 2.0"):
        loop.run(config)

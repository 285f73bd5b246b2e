"""Configs that contradict themselves or what stands upstream: one line each, before any work."""

import json

import pytest

from data_pipelines.records import kinds
from swaptalk_jax import errors
from swaptalk_jax.configs import expert, swap, sync, vqgan
from swaptalk_jax.training import agreement, loop


@pytest.mark.parametrize(
    ("module", "change", "line"),
    [
        (sync, {"train.eval_every": 0}, "config.train.eval_every = 0: must be at least 1"),
        (sync, {"train.save_every": -3}, "config.train.save_every = -3: must be"),
        (sync, {"train.log_every": 0}, "config.train.log_every = 0"),
        (sync, {"train.batch_size": 0}, "config.train.batch_size = 0"),
        (sync, {"train.eval_batch_size": -1}, "config.train.eval_batch_size = -1"),
        (sync, {"train.steps": 0}, "config.train.steps = 0"),
        (sync, {"train.accumulate": 0}, "config.train.accumulate = 0"),
        (sync, {"data.eval_examples": 0}, "config.data.eval_examples = 0"),
        (sync, {"data.context": 0}, "config.data.context = 0"),
        (sync, {"data.context": 7}, "config.data.context = 7, config.data.window = 5"),
        (sync, {"train.ema": 1.0}, "config.train.ema = 1.0"),
        (sync, {"model.unet.attention_levels": (2,)}, "unet.attention_levels: there is no level 2"),
        (sync, {"model.unet.heads": 3}, "unet.heads: 3 do not divide"),
        (sync, {"model.warp.depth": 0}, "warp.depth: 0 must be at least 1"),
        (swap, {"model.swap.heads": 5}, "swap.heads: 5 do not divide the width 16"),
        (vqgan, {"model.vqgan.codes": 0}, "vqgan.codes: 0 must be at least 1"),
        (vqgan, {"loss.adversarial_start_share": 5.0}, "adversarial_start_share = 5.0"),
        (vqgan, {"optimizer.default.lr_per_example": 1e-5}, "both lr = 0.002 and lr_per_example"),
    ],
)
def test_what_no_run_can_have_is_refused_before_any_work(module, change, line, tmp_path):
    c = module.get_config("micro")
    c.root = str(tmp_path)
    agreement.check(c)
    c.update_from_flattened_dict(change)
    with pytest.raises(errors.RunError) as error:
        loop.run(c)
    (told,) = str(error.value).splitlines()
    assert line in told and error.value.exit_code == errors.REFUSED
    assert not list(tmp_path.iterdir())


def stands(c, root, image=32, grid=(16, 16), window=5):
    """Leaves of what stands upstream as much as the check reads."""
    c.root = str(root)
    for kind, place in (("frames", "data"), ("codes", "codes"), ("swaps", "codes")):
        folder = root / place / kind / kinds.VERSION
        folder.mkdir(parents=True)
        (folder / "metadata.json").write_text(json.dumps({"size": image, "grid": grid}))
    for module in (vqgan, expert):
        other = module.get_config("micro")
        other.data.window = window
        (root / other.stage).mkdir()
        (root / other.stage / "config.json").write_text(other.to_json())


@pytest.mark.parametrize(
    ("module", "change", "line"),
    [
        (sync, {"data.context": 7, "data.window": 7}, "but the expert in .* hears 5 frames"),
        (sync, {"model.unet.embed_dim": 8}, "unet.embed_dim = 8, but the VQGAN in .* has 16"),
        (sync, {"model.warp.depth": 4}, "warp halves a grid 4 times, but .* 8 x 16 cells"),
        (sync, {"model.unet.multipliers": (1,) * 5}, "unet halves a grid 4 times"),
        (expert, {"model.expert.multipliers": (1,) * 5}, "expert halves a grid 4 times"),
        (swap, {"model.swap.embed_dim": 8}, "swap.embed_dim = 8, but the VQGAN"),
        (swap, {"model.swap.grid": (32, 32)}, "swap.grid = .32, 32., but the codes .* .16, 16."),
        (vqgan, {"model.vqgan.multipliers": (1,) * 6}, "has 32 px, which is no multiple of 64"),
    ],
)
def test_what_contradicts_what_stands_upstream_is_refused(module, change, line, tmp_path):
    c = module.get_config("micro")
    stands(c, tmp_path)
    agreement.check_upstream(c)
    c.update_from_flattened_dict(change)
    agreement.check(c)
    with pytest.raises(errors.RunError, match=line):
        agreement.check_upstream(c)


def test_an_expert_of_another_window_has_a_sync_of_its_own(tmp_path):
    c = sync.get_config("micro")
    stands(c, tmp_path, window=7)
    with pytest.raises(errors.RunError, match="hears 7 frames at once"):
        agreement.check_upstream(c)
    c.data.window = c.data.context = 7
    agreement.check_upstream(c)

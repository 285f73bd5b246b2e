"""Whether a config agrees with itself and with what stands upstream: told before any work."""

from flax.traverse_util import flatten_dict

from data_pipelines.records import reader
from swaptalk_jax import errors, stages
from swaptalk_jax.models.latent import factor
from swaptalk_jax.weights import store

# Whole numbers, and the least that they may be.
LEAST = {
    "seed": 0,
    "join_seconds": 1,
    "data.workers": 0,
    "data.window": 1,
    "data.context": 1,
    "data.eval_examples": 1,
    "train.steps": 1,
    "train.batch_size": 1,
    "train.eval_batch_size": 1,
    "train.accumulate": 1,
    "train.log_every": 1,
    "train.eval_every": 1,
    "train.save_every": 1,
    "train.keep": 1,
    "train.hang_seconds": 0,
    "train.profile_step": 0,
    "train.profile_steps": 1,
}


def check(config):
    """Raises RunError, in one line, for numbers that no run can have.

    Looks at the config alone: nothing is read and nothing is built.
    """
    flat = flatten_dict(config.to_dict(), sep=".")
    for name, least in LEAST.items():
        if flat[name] < least:
            raise errors.RunError(f"config.{name} = {flat[name]}: must be at least {least}")
    if not 0.0 <= config.train.ema < 1.0:
        raise errors.RunError(f"config.train.ema = {config.train.ema}: must be in [0, 1)")
    share = config.loss.get("adversarial_start_share", 0.0)
    if not 0.0 <= share <= 1.0:
        raise errors.RunError(f"config.loss.adversarial_start_share = {share}: must be in [0, 1]")
    for name, group in config.optimizer.items():
        if name != "constant" and group.lr and group.lr_per_example:
            raise errors.RunError(
                f"config.optimizer.{name} has both lr = {group.lr:g} and lr_per_example ="
                f" {group.lr_per_example:g}; set one of them to 0"
            )
    stages.named(config.stage).check(config)
    for name, wrong in _wrong_networks(config.model):
        raise errors.RunError(f"config.model.{name}: {wrong}")


def check_upstream(config):
    """Raises RunError, in one line, where a config contradicts the networks and records it reads.

    To be called when all that the config names stands, and before anything is compiled.
    """
    model, data = config.model, config.data
    if "vqgan" not in config.frozen:
        size = reader.metadata(data.root, "frames")["size"]
        if "vqgan" in model:
            cell = 2 * factor(model.vqgan.multipliers, model.vqgan.patch)
            _agree(
                size % cell == 0,
                f"config.model.vqgan halves images into cells: {data.root} has {size} px, which is"
                f" no multiple of {cell}",
            )
        return
    vqgan = store.load_config(config.frozen.vqgan)["model"]["vqgan"]
    for name in ("swap", "unet"):
        if name in model:
            _agree(
                model[name].embed_dim == vqgan["embed_dim"],
                f"config.model.{name}.embed_dim = {model[name].embed_dim}, but the VQGAN in"
                f" {config.frozen.vqgan} has {vqgan['embed_dim']}",
            )
    height, codes = reader.metadata(data.root, "swaps" if "swap" in model else "codes")["grid"]
    grid = height, codes // vqgan.get("depth", 1)
    if "swap" in model:
        _agree(
            tuple(model.swap.grid) == grid,
            f"config.model.swap.grid = {tuple(model.swap.grid)}, but the codes in {data.root} have"
            f" {grid}",
        )
    for slot, halvings in _halvings(model):
        _agree(
            grid[0] // 2 % 2**halvings == 0 and grid[1] % 2**halvings == 0,
            f"config.model.{slot} halves a grid {halvings} times, but the codes in {data.root} have"
            f" {grid[0] // 2} x {grid[1]} cells in the lower half",
        )
    if "expert" in config.frozen:
        _check_sound(config)


def _check_sound(config):
    """What a frame hears in sync must be what the expert heard: its window's own sound."""
    window = store.load_config(config.frozen.expert)["data"]["window"]
    for name in ("window", "context"):
        _agree(
            config.data[name] == window,
            f"config.data.{name} = {config.data[name]}, but the expert in {config.frozen.expert}"
            f" hears {window} frames at once; train it again with --config.data.window, or take"
            f" {window}",
        )


def _agree(agrees, otherwise):
    if not agrees:
        raise errors.RunError(otherwise)


def _halvings(model):
    """(name, how often it halves the grid of a lower half) of the networks that do."""
    for name in ("unet", "expert"):
        if name in model:
            yield name, len(model[name].multipliers) - 1
    if "warp" in model:
        yield "warp", model.warp.depth


FROM_ZERO = {"attention_levels", "box", "groups", "encoder_width", "reach"}  # fields; else from 1


def _wrong_networks(model):
    """(field, what is wrong with it) of networks that contradict themselves."""
    for name, network in model.items():
        for field, value in network.items():
            values = value if isinstance(value, (tuple, list)) else (value,)
            least = 0 if field in FROM_ZERO else 1
            if any(type(v) is int and v < least for v in values):
                yield f"{name}.{field}", f"{value} must be at least {least}"
    if "unet" in model:
        levels = len(model.unet.multipliers)
        for level in model.unet.attention_levels:
            if level >= levels:
                yield "unet.attention_levels", f"there is no level {level}, as there are {levels}"
        for multiplier in model.unet.multipliers:
            if model.unet.width * multiplier % model.unet.heads:
                yield "unet.heads", f"{model.unet.heads} do not divide {multiplier} x the width"
    if "swap" in model and model.swap.width % model.swap.heads:
        yield "swap.heads", f"{model.swap.heads} do not divide the width {model.swap.width}"
    if "recogniser" in model:
        least = 2 ** (len(model.recogniser.stages) + 1)
        if model.recogniser.input_size < least:
            yield "recogniser.input_size", f"must be at least {least} px for so many stages"

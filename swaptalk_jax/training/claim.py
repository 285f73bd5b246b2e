"""Whose run a folder holds: a run belongs to its whole config, less what cannot change it."""

import json
import os
from pathlib import Path

from flax.traverse_util import flatten_dict

from data_pipelines import files
from swaptalk_jax.errors import CheckpointError
from swaptalk_jax.weights import store

RUN = "run.json"  # the config that a run was begun with

# Fields and whole sections that cannot change what a run learns: places, logging, hardware (the
# precision of computing is the hardware's matter), and what is built upstream.
FREE = {
    *("workdir", "root", "pretrained", "compile_cache", "bundle"),
    *("mesh", "sharding", "distributed", "join_seconds", "precision", "remat", "remat_all"),
    *("needs", "build", "build_upstream", "agreed"),
    *("data.workers", "data.resident", "data.eval_examples"),
    *("train.eval_batch_size", "train.accumulate", "train.keep", "train.hang_seconds"),
    *("train.log_every", "train.eval_every", "train.save_every"),
    *("train.profile_step", "train.profile_steps"),
}

# They may be spelled in many ways.
PLACES = ("data.root", "data.features", "init_from", "distil.teacher", "frozen.")

TOLD = 6  # differences in one line


def claim(config):
    """Marks config.workdir with the config (a ConfigDict) and returns it as a plain dict.

    A run may go on with another global batch, as a machine of another size may have to, and with
    other steps where no schedule hangs on them.

    Raises CheckpointError, in one line, where another config has begun a run in the folder, or one
    with more steps than this config has.
    """
    workdir, plain = Path(config.workdir), json.loads(config.to_json())
    if (workdir / RUN).exists():
        before = store.load_config(workdir, RUN)
        _refuse(workdir, before, plain, {"train.batch_size"})
        batches = before["train"]["batch_size"], plain["train"]["batch_size"]
        if batches[0] != batches[1]:
            print(f"[{config.stage}] batches of {batches[1]} from here on, of {batches[0]} before")
    saved = [int(x.name) for x in workdir.glob("checkpoints/*") if x.name.isdigit()]
    if max(saved, default=0) > config.train.steps:
        raise CheckpointError(
            f"{workdir} is at step {max(saved)}, past config.train.steps = {config.train.steps};"
            " take as many steps, or name a new folder with --config.workdir"
        )
    files.replace(workdir / RUN, json.dumps(plain, indent=1).encode())
    return plain


def ended(config):
    """Whether config.workdir holds the finished run of this config.

    More steps than it has are a run to go on with, where no schedule hangs on them.
    Raises CheckpointError, in one line, where it holds the finished run of another config.
    """
    workdir = Path(config.workdir)
    if not (workdir / store.PARAMS).exists():
        return False
    before = store.load_config(workdir)
    more = before.get("train", {}).get("steps", 0) < config.train.steps
    _refuse(workdir, before, json.loads(config.to_json()), set(), fewer=False)
    return not more


def _refuse(workdir, before, now, free, fewer=True):
    """Raises CheckpointError where configs (plain dicts) are those of different runs.

    free: more fields that may differ. fewer: whether there may be fewer steps than before.
    """
    old, new = flatten_dict(before, sep="."), flatten_dict(now, sep=".")
    told = []
    for name in sorted((old.keys() | new.keys()) - FREE - free - NOTED):
        was, value = (flat.get(name, "not set") for flat in (old, new))
        if name.partition(".")[0] in FREE or json.dumps(was) == json.dumps(value):
            continue
        if name.startswith(PLACES) and _same_place((was, value), (before, now)):
            continue
        reason = ""
        if name == "train.steps":
            schedules = _schedules(new)
            if not schedules and (fewer or was == "not set" or was < value):
                continue
            reason = f" ({', '.join(schedules)} hangs on it)" if schedules else ""
        told.append(f"{name} was {was} and is {value}{reason}")
    if told:
        rest = f" and {len(told) - TOLD} more" if len(told) > TOLD else ""
        raise CheckpointError(
            f"{workdir} holds a run of another config: {', '.join(told[:TOLD])}{rest}; name a new"
            " folder with --config.workdir"
        )


# What a finished network's config.json has beside the run's config.
NOTED = {"vqgan_fingerprint", "sound_fingerprint"}


def _schedules(flat):
    """Names of the fields by which what happens at a step hangs on the number of all steps."""
    return [
        name
        for name, value in flat.items()
        if value and (name.endswith(".decay") or name.endswith("_share"))
    ]


def _same_place(paths, configs):
    """Whether two paths are one place, each of its own config; whole roots may have moved."""
    if not all(paths) or "not set" in paths:
        return False
    if len({os.path.realpath(path) for path in paths}) == 1:
        return True
    ways = [_from_root(path, config) for path, config in zip(paths, configs, strict=True)]
    return ways[0] is not None and ways[0] == ways[1]


def _from_root(path, config):
    """A path from the config's root on; None where it or the run is not below it."""
    root, place, workdir = (
        Path(os.path.realpath(p)) for p in (config["root"], path, config["workdir"])
    )
    inside = place.is_relative_to(root) and workdir.is_relative_to(root)
    return place.relative_to(root) if inside else None

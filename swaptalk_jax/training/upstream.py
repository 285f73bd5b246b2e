"""What a stage needs before it can run: built by the project's own commands, or asked for."""

import dataclasses
import operator
import shlex
import subprocess
import sys
import time
from pathlib import Path

from data_pipelines.media import log_mel
from data_pipelines.records import kinds
from swaptalk_jax import errors, pretrained
from swaptalk_jax.training import processes
from swaptalk_jax.weights import store

# Slot of config.frozen -> the stage of ours that trains such a network.
TRAINED_BY = {"recogniser": "identity", "vqgan": "vqgan", "expert": "expert", "swap": "swap"}

ONLY_FOR_CODES = ("data", "identity")  # of what a stage of codes needs
WITH_RECOGNISER = ("vqgan", "swap")  # stages whose config.frozen holds one


@dataclasses.dataclass(frozen=True)
class Need:
    """What must stand: the path whose presence tells, and the command that makes it.

    command: arguments of Python. What stands in <> is for the user to fill in.
    """

    path: Path
    command: tuple[str, ...]

    @property
    def by_hand(self):
        """Whether the command cannot be run as it is."""
        return any("<" in argument for argument in self.command)

    def __str__(self):
        return f"python {shlex.join(self.command)}"


def prepare(config, *more):
    """Builds what is missing of `needs(config, *more)`, in order; each in a process of its own.

    Raises RunError where config.build_upstream is not set, or the user has to give a file: it names
    the missing path and the command that makes it. Where such a command fails, the RunError has its
    exit code. Of several processes the first one builds, the others wait for the paths to appear.
    """
    for need in needs(config, *more):
        if need.path.exists():
            continue
        if need.by_hand or not config.build_upstream:
            raise errors.RunError(f"{need.path} is missing; make it first:\n  {need}")
        if config.distributed and processes.index() > 0:
            while not need.path.exists():
                time.sleep(1.0)
            continue
        print(f"[{config.stage}] {need.path} is missing, so first:\n  $ {need}", flush=True)
        done = subprocess.run([sys.executable, *need.command])
        if done.returncode:
            code = done.returncode if done.returncode > 0 else 128 - done.returncode
            line = f"{need.path} was not made: its command ended with exit code {code}"
            raise errors.RunError(line, code)


def needs(config, *more):
    """The Needs of a config: config.needs, `more` of these names, and its public networks.

    Names are "data", "codes", "sound" (the speech network behind config.data.features) and stages.
    What only makes codes is left out where codes stand.
    """
    names = [*config.needs, *more]
    if "codes" in names:
        names.insert(names.index("codes"), "sound")
        if _codes(config).exists():
            used = {TRAINED_BY.get(slot) for slot in config.frozen}
            names = [n for n in names if n not in ONLY_FOR_CODES or n in used]
    for name in names:
        if name == "data":
            yield Need(_data(config), command(config, "data"))
        elif name == "codes":
            yield Need(_codes(config), command(config, "codes"))
        elif name == "sound":
            if config.data.features not in log_mel.FEATURES:
                yield _network(config, config.data.features)
        else:
            yield _network(config, folder(config, name), name)
    for slot, place in config.frozen.items():
        if place and TRAINED_BY.get(slot) not in names:
            yield _network(config, place, TRAINED_BY.get(slot))


def folder(config, stage):
    """The folder of a stage's finished network, as this config knows it."""
    if stage == config.stage:
        return config.workdir
    known = {maker: config.frozen.get(slot) for slot, maker in TRAINED_BY.items()}
    known |= config.get("bundle", {})
    return known.get(stage) or f"{config.root}/{stage}"


def bundled(config, parts):
    """{stage: folder} of the stages of a bundle's parts (stages.bundled), as sync's config says.

    The recogniser's is left out: it is the swap's matter, which recogniser it was trained against.
    Raises RunError for the config of another stage.
    """
    if config.stage != "sync":
        raise errors.RunError(
            f"a bundle is made of the config of sync, not of {config.stage}: take"
            " --config=configs/sync.py"
        )
    return {stage: folder(config, stage) for stage, _ in parts.values() if stage != "identity"}


def command(config, name):
    """Arguments of Python that make "data", "codes" or a stage's network, as this config needs it.

    They carry what stages have to agree on (config.agreed) where it was set, and the places.
    """
    if name == "data":
        place = config.data.root if config.stage in ("identity", "vqgan") else f"{config.root}/data"
        options = {"out": place, **config.build}
        return ("-m", "data_pipelines.build", *(f"--{k}={v}" for k, v in options.items()))
    suffix = "" if config.size == "paper" else f":{config.size}"
    stage = "vqgan" if name == "codes" else name
    module = "swaptalk_jax.encode" if name == "codes" else "swaptalk_jax.train"
    made = ["-m", module, f"--config=configs/{stage}.py{suffix}"]
    for field, usual in config.agreed:
        value = operator.attrgetter(field)(config)
        if value != usual and (field != "frozen.recogniser" or stage in WITH_RECOGNISER):
            made.append(f"--config.{field}={value}")
    if folder(config, stage) != f"{config.root}/{stage}":
        made.append(f"--config.workdir={folder(config, stage)}")
    return (*made, f"--out={config.data.root}") if name == "codes" else tuple(made)


def _data(config):
    """What tells that there are face shards, which of them the stage needs."""
    images = config.stage in ("identity", "vqgan")
    place = Path(config.data.root) if images else Path(config.root) / "data"
    # What we build ourselves is whole when its last set stands.
    triples = config.stage == "swap" or config.build_upstream
    kind = "frames" if images else "triples" if triples else "clips"
    return place / kind / kinds.VERSION / "dataset_info.json"


def _codes(config):
    return Path(config.data.root) / "encode.json"


def _network(config, place, stage=None):
    """The Need of a finished network: a public one by its folder's name, or that of a stage."""
    path, place = Path(place) / store.PARAMS, Path(place)
    if path.exists():
        return Need(path, ())
    network = pretrained.networks().get(place.name)
    if network is None and stage:
        return Need(path, command(config, stage))
    verb = ("place", network.name if network else "<name>", "<file>")
    if network and network.package:
        verb = ("fetch", network.name)
    out = () if str(place.parent) == "runs/pretrained" else (f"--out={place.parent}",)
    return Need(path, ("-m", "swaptalk_jax.pretrained", *verb, *out))

"""The objectives. A stage is one file here and one config; all else is derived from the file.

The training loop knows a stage only by this protocol. A stage opens no files: it is handed the
frozen networks and, where it asks for it, the metadata of its records.

- `init(rng, batch) -> params`: a dict whose top-level keys are the optimizer's groups.
- `start(params, given) -> params`: what a new run starts from, other than `init`'s random numbers.
  given: parameters of the network that config.init_from names, or None.
- `loss(params, frozen, batch, rng, step) -> (scalar, (metrics, aux))`: metrics are scalars for
  the log; aux is handed to `after_update`. frozen: {slot: parameters} of the networks handed over.
- `after_update(params, aux, rng) -> (params, renewed)`: what changes without a gradient (dead
  codes). renewed: some of the tree of params, with a mask bool [rows] for each array in it: rows
  that are new, for which the optimizer forgets what it knew of the old ones.
- `evaluate(params, frozen, batch) -> {name: per-example values [b]}`: the loop applies
  `batch["mask"]` and averages.
- `pictures(params, frozen, batch) -> rows of images`: a sample grid for the log.
- `histograms(params, frozen, batch) -> {name: array}`: what TensorBoard draws the spread of.
- `averaged(params) -> some of params`: whose running averages are kept, see config.train.ema.
"""

import functools
import graphlib
import importlib
import math
import pkgutil

from swaptalk_jax import backend, errors
from swaptalk_jax.models import registry
from swaptalk_jax.weights.finished import TEACHER


class Stage:
    """What stages share, and what they declare of themselves.

    view: the loader's view of the data (data_pipelines/loading/views.py).
    frozen, optional: slots of config.frozen whose networks the stage reads; without those of
        `optional` it can do.
    metadata_of: the kind of records whose metadata the stage is handed; "": none.
    bundled: names of the networks that a bundle takes from this stage, which a finished run of the
        same stage may teach (config.distil; their slots begin with TEACHER), and `file` the name of
        their file in it, without its ending; () and "": none.
    measures: whether only the evaluation asks the bundled networks, and infer does without.
    learns: the metric that a run of this stage lowers first of all; "" is the whole loss.
    worth: what tells an evaluation's worth: (metric, sign of better, share of the best value by
        which it has to worsen to be no chance); None: nothing does.
    copies: (an error, that of leaving the picture as it is, what is then copied); None: no such.
    rules: what a run's diagnosis watches beside what is watched in every stage (stages/rules.py).
    """

    view = ""
    frozen, optional = (), ()
    metadata_of = ""
    bundled, file = (), ""
    measures = False
    learns, worth, copies, rules = "loss", None, None, ()

    def __init__(self, config, networks, metadata=None):
        """networks: {slot: weights.finished.FinishedNetwork}; metadata: dict, see `metadata_of`."""
        del metadata
        self.config = config
        self.dtype = backend.compute_dtype(config.precision)
        missing = [slot for slot in self.frozen if slot not in networks]
        if missing:
            raise errors.CheckpointError(
                f"the stage {config.stage} needs config.frozen.{missing[0]}; give the folder of a"
                " finished network"
            )
        slots = (*self.frozen, *self.optional, *(TEACHER + name for name in self.bundled))
        self.networks = {slot: networks[slot] for slot in slots if slot in networks}

    @staticmethod
    def check(config):
        """Raises RunError, in one line, where the config contradicts itself; opens nothing."""

    @staticmethod
    def turns(config):
        """The step after which gradients are another matter than before; inf: there is none."""
        del config
        return math.inf

    def build(self, name):
        """The network of this name with the fields of config.model[name]."""
        again = registry.remat_of(self.config)
        return registry.build(name, self.config.model[name], None, again, self.dtype)

    def averaged(self, params):
        """The parameters whose running averages are kept, see config.train.ema."""
        return {name: params[name] for name in self.config.model if name != "discriminator"}

    def start(self, params, given):
        """Nothing but what `init` made."""
        del given
        return params

    def after_update(self, params, aux, rng):
        """Nothing changes without a gradient."""
        del aux, rng
        return params, {}

    def pictures(self, params, frozen, batch):
        """No pictures."""
        del params, frozen, batch
        return None

    def histograms(self, params, frozen, batch):
        """None."""
        del params, frozen, batch
        return {}


@functools.cache
def registered():
    """{name: class} of the stages, each one after those whose networks it reads.

    A stage is a module of this folder with a `STAGE`; its name is the module's.
    """
    modules = [m.name for m in pkgutil.iter_modules(__path__)]
    found = {name: importlib.import_module(f"{__name__}.{name}") for name in sorted(modules)}
    found = {name: module.STAGE for name, module in found.items() if hasattr(module, "STAGE")}
    makers = {network: name for name, stage in found.items() for network in stage.bundled}
    order = graphlib.TopologicalSorter()
    for name, stage in found.items():
        needed = {makers[s] for s in (*stage.frozen, *stage.optional) if s in makers}
        order.add(name, *sorted(needed - {name}))
    return {name: found[name] for name in order.static_order()}


def named(name):
    """The class of a stage. Raises RunError, in one line, where there is none of this name."""
    if name not in registered():
        raise errors.RunError(f"config.stage = {name!r}: one of {', '.join(registered())}")
    return registered()[name]


def make(config, networks, metadata=None):
    """The stage that config.stage names, with its networks and metadata (see `Stage`)."""
    return named(config.stage)(config, networks, metadata)


def bundled():
    """{file of a bundle: (stage that trains it, names of the networks in it)}, in stages' order."""
    return {s.file: (name, s.bundled) for name, s in registered().items() if s.file}

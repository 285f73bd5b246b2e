"""The objectives. The training loop knows a stage only by this protocol.

- `init(rng, batch) -> params`: a dict whose top-level keys are the optimizer's groups.
- `start(params) -> params`: what a new run starts from, other than `init`'s random numbers.
- `load_frozen() -> frozen`: parameters that the stage only reads, by the config's paths.
- `loss(params, frozen, batch, rng, step) -> (scalar, (metrics, aux))`: metrics are scalars for
  the log; aux is handed to `after_update`.
- `after_update(params, aux, rng) -> params`: what changes without a gradient (dead codes).
- `evaluate(params, frozen, batch) -> {name: per-example values [b]}`: the loop applies
  `batch["mask"]` and averages.
- `pictures(params, frozen, batch) -> rows of images`: a sample grid for the log.
- `histograms(params, frozen, batch) -> {name: array}`: what TensorBoard draws the spread of.
- `averaged(params) -> some of params`: whose running averages are kept, see config.train.ema.
"""

import importlib

from swaptalk_jax import backend
from swaptalk_jax.models import registry
from swaptalk_jax.weights import finished

NAMES = ("identity", "vqgan", "expert", "swap", "sync")


class Stage:
    """What stages share: the config, no frozen networks, nothing after the update, no pictures."""

    view = None  # the loader's view of the data (data_pipelines/loading/loader.py)

    def __init__(self, config):
        self.config = config
        self.dtype = backend.compute_dtype(config.precision)

    def build(self, name):
        """The network of this name with the numbers of config.model[name]."""
        return registry.build(name, self.config.model[name], None, self.config.remat, self.dtype)

    def frozen(self, name):
        """The frozen network that config.frozen[name] holds."""
        return finished.FinishedNetwork(
            self.config.frozen[name], name, self.dtype, self.config.remat
        )

    def averaged(self, params):
        """The parameters whose running averages are kept, see config.train.ema."""
        return {name: params[name] for name in self.config.model if name != "discriminator"}

    def start(self, params):
        """Nothing but what `init` made."""
        return params

    def load_frozen(self):
        """Nothing is frozen."""
        return {}

    def after_update(self, params, aux, rng):
        """Nothing changes without a gradient."""
        del aux, rng
        return params

    def pictures(self, params, frozen, batch):
        """No pictures."""
        del params, frozen, batch
        return None

    def histograms(self, params, frozen, batch):
        """None."""
        del params, frozen, batch
        return {}


def make(config):
    """The stage that config.stage names."""
    if config.stage not in NAMES:
        raise ValueError(f"config.stage = {config.stage!r}: one of {', '.join(NAMES)}")
    return importlib.import_module(f"swaptalk_jax.stages.{config.stage}").STAGE(config)

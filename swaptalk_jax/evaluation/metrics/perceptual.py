"""How different pictures look to a perceptual network: LPIPS (Zhang et al. 2018) and its kin."""

import functools

import jax.numpy as jnp
import numpy as np

from swaptalk_jax import backend
from swaptalk_jax.evaluation.renders import PERCEIVED
from swaptalk_jax.evaluation.tally import Tally, chunks, spread
from swaptalk_jax.models.latent import to_float
from swaptalk_jax.weights.finished import FinishedNetwork


class Perceptual:
    """The perceptual network of a folder, e.g. of `swaptalk_jax.pretrained fetch stlpips`."""

    def __init__(self, folder, batch_size=16):
        network, self._batch_size = FinishedNetwork(folder, "perceptual", jnp.float32), batch_size
        distance = backend.jit(
            lambda params, a, b: network.apply(params, to_float(a), to_float(b), method="distance")
        )
        self._distance = functools.partial(distance, network.params())

    def __call__(self, images, results):
        """Distances float32 [n] of uint8 pairs [n h w 3]; 0 for equal pictures."""
        return backend.in_batches(self._distance, self._batch_size, images, results)


def lpips(pipe, validation):
    """vqgan/lpips: between a frame and its reconstruction. swap/lpips: between a swap and the
    proxy's result; swap/lpips_unchanged: between the target and that. Nothing where the split has
    no `perceptual` network.
    """
    if validation.perceptual is None:
        return {}, {}, {}
    look, tally, n = validation.perceptual, Tally(), pipe.batch_size
    for rows in chunks(spread(len(validation.frames), PERCEIVED), n):
        images, _ = validation.images(rows)
        codes = [clip["codes"][at] for clip, at in map(validation.place, rows)]
        results = pipe.decode(pipe.lookup(np.stack(codes)))
        tally.add({"vqgan/lpips": look(images, results)})
    for rows in chunks(spread(len(validation.triples), PERCEIVED), n):
        batch, truth = validation.swapped(rows)
        target, _ = validation.images(batch["target_frame"])
        z = pipe.swap(*(pipe.lookup(batch[k]) for k in ("source", "target")))
        looks = look(truth, pipe.decode(z))
        tally.add({"swap/lpips": looks, "swap/lpips_unchanged": look(truth, target)})
    return tally.means(), tally.counts(), {}

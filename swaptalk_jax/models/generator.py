"""Lip-sync generator: warp, then UNet, then the untouched upper half (paper eq. 11-13)."""

import dataclasses

import flax.linen as nn
import jax

from swaptalk_jax.models.latent import halves, join


@dataclasses.dataclass(frozen=True)
class Generator:
    """The two networks of the lip-sync module as pure functions of arrays.

    warp: (target_upper, reference_upper, reference_lower) -> (lower, offsets); unet: (lower,
    audio) -> lower. Parameters are a dict with the keys `warp` and `unet`. target and reference
    are VQ-embeddings float [n h w d]; audio is float [n tokens c], the sound around each frame.
    """

    warp: nn.Module
    unet: nn.Module

    def init(self, rng, target, audio):
        """Parameters {warp, unet} from the shapes of a target and its sound."""
        upper, lower = halves(target)
        first, second = jax.random.split(rng)
        return {
            "warp": self.warp.init(first, upper, upper, lower)["params"],
            "unet": self.unet.init(second, lower, audio)["params"],
        }

    def lips(self, params, target, reference, audio):
        """Lower half of the result [n h/2 w d], and the warp's offsets [n h/2 w 2] in cells."""
        upper, _ = halves(target)
        warped, offsets = self.warp.apply({"params": params["warp"]}, upper, *halves(reference))
        return self.unet.apply({"params": params["unet"]}, warped, audio), offsets

    def unwarped_lips(self, params, reference, audio):
        """`lips` of the reference as they stand: the paper's rule for inference."""
        return self.unet.apply({"params": params["unet"]}, halves(reference)[1], audio)

    def apply(self, params, target, reference, audio, warp=True):
        """The whole result [n h w d]: the target's upper half over the new lower half."""
        if warp:
            lower, _ = self.lips(params, target, reference, audio)
        else:
            lower = self.unwarped_lips(params, reference, audio)
        return join(halves(target)[0], lower)

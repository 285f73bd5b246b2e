"""Lip-sync in the latent space: warp the reference's mouth, then let the sound form it (III-C)."""

import jax
import jax.numpy as jnp

from swaptalk_jax.models.latent import halves, join
from swaptalk_jax.stages import Stage, losses


class SyncStage(Stage):
    """params: warp, unet. Trains on `windows`: consecutive frames, a reference, their sound."""

    view = "windows"

    def __init__(self, config):
        super().__init__(config)
        self.warp = self.build("warp")
        self.unet = self.build("unet")
        self.vqgan = self.frozen("vqgan")
        self.expert = self.frozen("expert")

    def load_frozen(self):
        """Codebooks (and the decoder, for pictures), and the expert behind L_sync."""
        return {"vqgan": self.vqgan.params(), "expert": self.expert.params()}

    def frames(self, nets, batch):
        """Target and reference VQ-embeddings and sound, frame by frame.

        codes [b t h w], reference [b h w], audio [b t n*c] -> [bt h w d] twice and [bt n c].
        """
        b, t = batch["codes"].shape[:2]
        target = self.vqgan.apply(nets["vqgan"], batch["codes"], method="lookup")
        reference = self.vqgan.apply(nets["vqgan"], batch["reference"], method="lookup")
        reference = jnp.broadcast_to(reference[:, None], target.shape)
        flat = [x.reshape(b * t, *x.shape[2:]) for x in (target, reference, self.tokens(batch))]
        return flat

    def tokens(self, batch):
        """Sound around each frame as tokens [b t n c], n = 2 context."""
        audio = batch["audio"]
        return audio.reshape(*audio.shape[:2], 2 * self.config.data.context, -1)

    def init(self, rng, batch):
        """Parameters from one batch of windows."""
        upper, lower = halves(self.vqgan.empty(batch["reference"]))
        audio = jnp.zeros((len(lower), *self.tokens(batch).shape[2:]))
        first, second = jax.random.split(rng)
        return {
            "warp": self.warp.init(first, upper, upper, lower)["params"],
            "unet": self.unet.init(second, lower, audio)["params"],
        }

    def run(self, params, target, reference, audio):
        """Lower half of the result [n h/2 w d] (eq. 11, 12) and the warp's offsets."""
        upper, _ = halves(target)
        reference_upper, reference_lower = halves(reference)
        warped, offsets = self.warp.apply(
            {"params": params["warp"]}, upper, reference_upper, reference_lower
        )
        return self.unet.apply({"params": params["unet"]}, warped, audio), offsets

    def terms(self, nets, batch, lower):
        """L_code per frame [bt] (0 at the truth) and L_sync per window [b] (eq. 14, 15)."""
        b, t = batch["codes"].shape[:2]
        target = self.vqgan.apply(nets["vqgan"], batch["codes"], method="lookup")
        target = halves(target.reshape(b * t, *target.shape[2:]))[1]
        # The middle frame's context spans exactly the window's own sound.
        video, sound = self.expert.apply(
            nets["expert"],
            lower.reshape(b, t, *lower.shape[1:]),
            self.tokens(batch)[:, t // 2],
        )
        return {"code": self.code(lower, target), "sync": losses.sync(video, sound)}

    def code(self, lower, target):
        """L_code of lower halves [n h/2 w d] -> [n]; cells of the mouth weigh `loss.mouth` x."""
        h, w = lower.shape[1:3]
        weights = losses.lower_weights(2 * h, w, self.config.loss.mouth)
        return losses.code(lower, target, weights[..., None])

    def loss(self, params, nets, batch, rng, step):
        """Eq. 16."""
        del rng, step
        lower, offsets = self.run(params, *self.frames(nets, batch))
        terms = {k: jnp.mean(v) for k, v in self.terms(nets, batch, lower).items()}
        total = self.config.loss.code * terms["code"]
        if self.config.loss.sync:  # else the expert's backward pass is left out
            total += self.config.loss.sync * terms["sync"]
        metrics = {f"loss/{k}": v for k, v in terms.items()}
        return total, (metrics | {"warp_cells": jnp.mean(jnp.abs(offsets))}, {})

    def evaluate(self, params, nets, batch):
        """Code error, that of the unchanged reference, and the expert's cosine, per window."""
        b, t = batch["codes"].shape[:2]
        target, reference, audio = self.frames(nets, batch)
        lower, _ = self.run(params, target, reference, audio)
        terms = self.terms(nets, batch, lower)
        unchanged = self.code(halves(reference)[1], halves(target)[1])
        return {
            "code": terms["code"].reshape(b, t).mean(1),
            "code_unchanged": unchanged.reshape(b, t).mean(1),
            "in_sync": jnp.exp(-terms["sync"]),
        }

    def pictures(self, params, nets, batch):
        """Reference, truth, result: the frames of the first two windows."""
        batch = {k: v[:2] for k, v in batch.items()}
        target, reference, audio = self.frames(nets, batch)
        lower, _ = self.run(params, target, reference, audio)
        result = join(halves(target)[0], lower)
        return [
            self.vqgan.apply(nets["vqgan"], z, method="decode") for z in (reference, target, result)
        ]


STAGE = SyncStage

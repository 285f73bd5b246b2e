"""Lip-sync in the latent space: warp the reference's mouth, then let the sound form it (III-C)."""

import jax
import jax.numpy as jnp

from swaptalk_jax import errors
from swaptalk_jax.models import expert
from swaptalk_jax.models.generator import Generator
from swaptalk_jax.models.latent import halves
from swaptalk_jax.stages import Stage, losses
from swaptalk_jax.weights.finished import TEACHER


class SyncStage(Stage):
    """params: warp, unet. Trains on `windows`: consecutive frames, a reference, their sound."""

    view = "windows"
    frozen = ("vqgan", "expert")  # codebooks, and the decoder for pictures; behind L_sync
    bundled, file = ("warp", "unet"), "sync"
    learns = "loss/code"
    worth = ("val/code", -1, 0.1)
    copies = ("val/code", "val/code_unchanged", "reference")

    @staticmethod
    def check(config):
        """The expert hears the context of a window's middle frame, so both are equal."""
        data = config.data
        if data.context != data.window:
            raise errors.RunError(
                f"config.data.context = {data.context}, config.data.window = {data.window}: they"
                " must be equal, for the expert hears the context of a window's middle frame"
            )

    def __init__(self, config, networks, metadata=None):
        super().__init__(config, networks, metadata)
        self.generator = Generator(self.build("warp"), self.build("unet"))
        self.vqgan, self.expert = (self.networks[slot] for slot in self.frozen)
        taught = [self.networks.get(TEACHER + name) for name in self.bundled]
        self.teacher = Generator(*(network.model for network in taught)) if all(taught) else None

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
        z = self.vqgan.empty(batch["reference"])
        return self.generator.init(rng, z, jnp.zeros((len(z), *self.tokens(batch).shape[2:])))

    def terms(self, nets, batch, lower):
        """L_code per frame [bt] (0 at the truth), the expert's cosine per window [b] (eq. 14)."""
        b, t = batch["codes"].shape[:2]
        target = self.vqgan.apply(nets["vqgan"], batch["codes"], method="lookup")
        target = halves(target.reshape(b * t, *target.shape[2:]))[1]
        # The middle frame's context spans exactly the window's own sound.
        video, sound = self.expert.apply(
            nets["expert"],
            lower.reshape(b, t, *lower.shape[1:]),
            self.tokens(batch)[:, t // 2],
        )
        return self.code(lower, target), expert.in_sync(video, sound)

    def code(self, lower, target):
        """L_code of lower halves [n h/2 w d] -> [n]; cells of the mouth weigh `loss.mouth` x."""
        h, w = lower.shape[1:3]
        weights = losses.lower_weights(2 * h, w, self.config.loss.mouth)
        return losses.code(lower, target, weights[..., None])

    def distance_from_teacher(self, nets, frames, lower):
        """L_code of lower halves from the teacher's of the same frames, a scalar (chosen)."""
        params = {name: nets[TEACHER + name] for name in self.bundled}
        taught = jax.lax.stop_gradient(self.teacher.lips(params, *frames)[0])
        return jnp.mean(self.code(lower, taught))

    def loss(self, params, nets, batch, rng, step):
        """Eq. 16, and the distance from a teacher where there is one."""
        del rng, step
        frames = self.frames(nets, batch)
        lower, offsets = self.generator.lips(params, *frames)
        code, cosine = self.terms(nets, batch, lower)
        terms = {"code": jnp.mean(code), "sync": jnp.mean(losses.sync(cosine))}
        total = self.config.loss.code * terms["code"]
        if self.config.loss.sync:  # else the expert's backward pass is left out
            total += self.config.loss.sync * terms["sync"]
        metrics = {f"loss/{k}": v for k, v in terms.items()}
        if self.teacher:
            metrics["loss/distil"] = self.distance_from_teacher(nets, frames, lower)
            total += self.config.distil.weight * metrics["loss/distil"]
        return total, (metrics | {"warp_cells": jnp.mean(jnp.abs(offsets))}, {})

    def evaluate(self, params, nets, batch):
        """Code error, that of the unchanged reference, and the expert's cosine, per window."""
        b, t = batch["codes"].shape[:2]
        target, reference, audio = self.frames(nets, batch)
        lower, _ = self.generator.lips(params, target, reference, audio)
        code, cosine = self.terms(nets, batch, lower)
        unchanged = self.code(halves(reference)[1], halves(target)[1])
        return {
            "code": code.reshape(b, t).mean(1),
            "code_unchanged": unchanged.reshape(b, t).mean(1),
            "in_sync": cosine,
        }

    def pictures(self, params, nets, batch):
        """Reference, truth, result: the frames of the first two windows."""
        batch = {k: v[:2] for k, v in batch.items()}
        target, reference, audio = self.frames(nets, batch)
        result = self.generator.apply(params, target, reference, audio)
        return [
            self.vqgan.apply(nets["vqgan"], z, method="decode") for z in (reference, target, result)
        ]


STAGE = SyncStage

"""Lip-sync in the latent space: warp the reference's mouth, then let the sound form it (III-C)."""

import jax
import jax.numpy as jnp
import numpy as np

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
    optional = ("swap",)  # lips on swapped faces
    bundled, file = ("warp", "unet"), "sync"
    learns = "loss/code"
    worth = ("val/code", -1, 0.1)
    copies = ("val/code", "val/code_unchanged", "reference")

    @staticmethod
    def check(config):
        """The expert hears the context of a window's middle frame, and sees whole windows."""
        data, loss = config.data, config.loss
        if data.context != data.window:
            raise errors.RunError(
                f"config.data.context = {data.context}, config.data.window = {data.window}: they"
                " must be equal, for the expert hears the context of a window's middle frame"
            )
        if loss.sync and loss.frames:
            raise errors.RunError(
                f"config.loss.frames = {loss.frames}, config.loss.sync = {loss.sync}: one of them"
                " must be 0, for the expert sees whole windows"
            )
        if loss.swapped and not config.frozen.get("swap"):
            raise errors.RunError(
                f"config.loss.swapped = {loss.swapped} needs config.frozen.swap: give the folder of"
                " a finished swap, or set config.loss.swapped to 0"
            )

    def __init__(self, config, networks, metadata=None):
        super().__init__(config, networks, metadata)
        self.generator = Generator(self.build("warp"), self.build("unet"))
        self.vqgan, self.expert = (self.networks[slot] for slot in self.frozen)
        taught = [self.networks.get(TEACHER + name) for name in self.bundled]
        self.teacher = Generator(*(network.model for network in taught)) if all(taught) else None

    def frames(self, nets, batch, few=0, swapped=0):
        """Target and reference VQ-embeddings and sound, frame by frame.

        codes [b t h w], reference [b h w], audio [b t n*c] -> [bt h w d] twice and [bt n c].
        few: only so many frames of each window, evenly spread; 0: all. swapped: in so many windows
        of the batch the face is that of the next window's reference.
        """
        t = batch["codes"].shape[1]
        at = np.linspace(0, t - 1, few).round().astype(int) if few else np.arange(t)
        target = self.vqgan.apply(nets["vqgan"], batch["codes"][:, at], method="lookup")
        reference = self.vqgan.apply(nets["vqgan"], batch["reference"], method="lookup")
        if swapped:
            target, reference = self.swapped(nets, target, reference, swapped)
        reference = jnp.broadcast_to(reference[:, None], target.shape)
        audio = self.tokens(batch)[:, at]
        return [x.reshape(-1, *x.shape[2:]) for x in (target, reference, audio)]

    def swapped(self, nets, target, reference, count):
        """The same [b t h w d] and [b h w d], with swapped faces on codes in the first windows.

        A swap keeps the lips that it is given. So swapped true frames are the truth of lips on
        swapped faces. For one device: on several, a few windows have to be shared out anew.
        """
        given = jnp.concatenate([target, reference[:, None]], axis=1)[:count]
        source = jnp.broadcast_to(jnp.roll(reference, -1, 0)[:count, None], given.shape)
        source, flat = (x.reshape(-1, *x.shape[2:]) for x in (source, given))
        z = self.networks["swap"].apply(nets["swap"], source, flat)
        codes = self.vqgan.apply(nets["vqgan"], z, method="nearest")
        z = self.vqgan.apply(nets["vqgan"], codes, method="lookup").reshape(given.shape)
        target = jnp.concatenate([z[:, :-1], target[count:]])
        return jax.lax.stop_gradient((target, jnp.concatenate([z[:, -1], reference[count:]])))

    def tokens(self, batch):
        """Sound around each frame as tokens [b t n c], n = 2 context."""
        audio = batch["audio"]
        return audio.reshape(*audio.shape[:2], 2 * self.config.data.context, -1)

    def init(self, rng, batch):
        """Parameters from one batch of windows."""
        z = self.vqgan.empty(batch["reference"])
        return self.generator.init(rng, z, jnp.zeros((len(z), *self.tokens(batch).shape[2:])))

    def in_sync(self, nets, batch, lower):
        """The expert's cosine per window [b] (eq. 14) of lower halves [bt h/2 w d]."""
        b, t = batch["codes"].shape[:2]
        # The middle frame's context spans exactly the window's own sound.
        video, sound = self.expert.apply(
            nets["expert"],
            lower.reshape(b, t, *lower.shape[1:]),
            self.tokens(batch)[:, t // 2],
        )
        return expert.in_sync(video, sound)

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
        c = self.config.loss
        frames = self.frames(nets, batch, c.frames, c.swapped)
        lower, offsets = self.generator.lips(params, *frames)
        code = jnp.mean(self.code(lower, halves(frames[0])[1]))
        total, metrics = c.code * code, {"loss/code": code}
        if c.sync:  # else the expert is left out
            metrics["loss/sync"] = jnp.mean(losses.sync(self.in_sync(nets, batch, lower)))
            total += c.sync * metrics["loss/sync"]
        if self.teacher:
            metrics["loss/distil"] = self.distance_from_teacher(nets, frames, lower)
            total += self.config.distil.weight * metrics["loss/distil"]
        return total, (metrics | {"warp_cells": jnp.mean(jnp.abs(offsets))}, {})

    def evaluate(self, params, nets, batch):
        """Code error, that of the unchanged reference, and the expert's cosine, per window."""
        b, t = batch["codes"].shape[:2]
        target, reference, audio = self.frames(nets, batch)
        lower, _ = self.generator.lips(params, target, reference, audio)
        code = self.code(lower, halves(target)[1])
        unchanged = self.code(halves(reference)[1], halves(target)[1])
        return {
            "code": code.reshape(b, t).mean(1),
            "code_unchanged": unchanged.reshape(b, t).mean(1),
            "in_sync": self.in_sync(nets, batch, lower),
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

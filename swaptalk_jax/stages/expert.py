"""VQ-lip expert: do these lips and this sound belong together? (paper III-C, eq. 15)."""

import jax
import jax.numpy as jnp

from swaptalk_jax import losses
from swaptalk_jax.models.expert import LipExpert
from swaptalk_jax.models.vqgan import halves
from swaptalk_jax.stages import Stage


class ExpertStage(Stage):
    """params: expert. Trains on `pairs`: half in sync, half shifted or foreign sound."""

    view = "pairs"

    def __init__(self, config):
        super().__init__(config)
        self.expert = self.build(LipExpert, "expert")
        self.vqgan = self.frozen("vqgan")

    def load_frozen(self):
        """The codebooks' owner."""
        return {"vqgan": self.vqgan.params()}

    def lower(self, nets, codes):
        """Codes [b t h w] -> VQ-embeddings of the lower half [b t h/2 w d]."""
        return halves(self.vqgan.apply(nets["vqgan"], codes, method="lookup"))[1]

    def init(self, rng, batch):
        """Parameters from one batch of pairs."""
        lower = halves(self.vqgan.empty(batch["codes"]))[1]
        return {"expert": self.expert.init(rng, lower, batch["audio"])["params"]}

    def loss(self, params, nets, batch, rng, step):
        """Binary cross-entropy on the cosine, of partly hidden lips and sound."""
        del step
        loss, right = self.judge(params, nets, batch, rng)
        metrics = {"loss/bce": jnp.mean(loss), "accuracy": jnp.mean(right)}
        return jnp.mean(loss), (metrics, {})

    def judge(self, params, nets, batch, rng=None):
        """(loss [b], whether the verdict at cosine 0.5 is right [b]); with rng, as in training."""
        lower, audio = self.lower(nets, batch["codes"]), batch["audio"]
        if rng is not None and self.config.loss.hide:
            lower, audio = self.partly(lower, audio, rng)
        video, audio = self.expert.apply({"params": params["expert"]}, lower, audio)
        right = (losses.in_sync(video, audio) > 0.5) == (batch["label"] > 0.5)
        return losses.sync_classification(video, audio, batch["label"]), right.astype(jnp.float32)

    def partly(self, lower, audio, rng):
        """Hides a share of the grid's cells (in all frames alike) and of the mel bands."""
        keys = jax.random.split(rng)
        shown = 1.0 - self.config.loss.hide
        b, _, h, w, _ = lower.shape
        cells = jax.random.bernoulli(keys[0], shown, (b, 1, h, w, 1))
        bands = jax.random.bernoulli(keys[1], shown, (b, 1, audio.shape[-1]))
        return lower * cells, audio * bands

    def evaluate(self, params, nets, batch):
        """Accuracy (the set is balanced) and loss, per pair."""
        loss, right = self.judge(params, nets, batch)
        return {"accuracy": right, "bce": loss}


STAGE = ExpertStage

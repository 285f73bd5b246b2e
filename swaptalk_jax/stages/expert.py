"""VQ-lip expert: do these lips and this sound belong together? (paper III-C, eq. 15)."""

import jax.numpy as jnp

from swaptalk_jax.models import expert
from swaptalk_jax.models.latent import halves
from swaptalk_jax.stages import Stage, losses


class ExpertStage(Stage):
    """params: expert. Trains on `pairs`: half in sync, half shifted or foreign sound."""

    view = "pairs"

    def __init__(self, config):
        super().__init__(config)
        self.expert = self.build("expert")
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

    def judge(self, params, nets, batch):
        """Features of lips and sound [b e] each, the pairs' cross-entropy [b] (Wav2Lip's)."""
        lower = self.lower(nets, batch["codes"])
        video, audio = self.expert.apply({"params": params["expert"]}, lower, batch["audio"])
        return video, audio, losses.sync_classification(video, audio, batch["label"])

    def loss(self, params, nets, batch, rng, step):
        """Cross-entropy of the pairs; `contrast` x InfoNCE over the batch (chosen)."""
        del rng, step
        video, audio, bce = self.judge(params, nets, batch)
        loss = jnp.mean(bce)
        contrast = losses.contrast(video, audio, batch["label"])
        accuracy = jnp.mean(right(video, audio, batch["label"]))
        metrics = {"loss/bce": loss, "loss/contrast": contrast, "accuracy": accuracy}
        return loss + self.config.loss.contrast * contrast, (metrics, {})

    def evaluate(self, params, nets, batch):
        """Accuracy (the set is balanced) and loss, per pair."""
        video, audio, bce = self.judge(params, nets, batch)
        return {"accuracy": right(video, audio, batch["label"]), "bce": bce}


def right(video, audio, label):
    """1.0 where the verdict at cosine 0.5 is right, else 0.0 [b]."""
    return ((expert.in_sync(video, audio) > 0.5) == (label > 0.5)).astype(jnp.float32)


STAGE = ExpertStage

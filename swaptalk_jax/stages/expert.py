"""VQ-lip expert: do these lips and this sound belong together? (paper III-C, eq. 15)."""

import jax.numpy as jnp

from swaptalk_jax.models import expert
from swaptalk_jax.models.latent import halves
from swaptalk_jax.stages import Stage, losses, rules


class ExpertStage(Stage):
    """params: expert. Trains on `pairs`: half in sync, half shifted or foreign sound."""

    view = "pairs"
    frozen = ("vqgan",)  # whose codebooks
    bundled, file = ("expert",), "expert"
    measures = True
    learns = "loss/bce"
    worth = ("val/accuracy", 1, 0.03)  # not val/bce: it rises while accuracy still does
    rules = (rules.STUCK_EXPERT, rules.BY_HEART)

    def __init__(self, config, networks, metadata=None):
        super().__init__(config, networks, metadata)
        self.expert = self.build("expert")
        self.vqgan = self.networks["vqgan"]

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

"""Recogniser: an iResNet trained with an additive angular margin softmax (ArcFace)."""

import jax
import jax.numpy as jnp

from swaptalk_jax.models.latent import to_float
from swaptalk_jax.stages import Stage, losses
from swaptalk_jax.stages.images import augment


class IdentityStage(Stage):
    """params: recogniser, head [classes d]. Trains on `images`; metadata: {"identities": names}."""

    view = "images"
    metadata_of = "frames"
    bundled, file = ("recogniser",), "recogniser"
    measures = True
    learns = "loss/margin"

    def __init__(self, config, networks, metadata=None):
        super().__init__(config, networks, metadata)
        self.recogniser = self.build("recogniser")
        self.classes = len(metadata["identities"])

    def init(self, rng, batch):
        """Parameters from one batch of images."""
        network, head = jax.random.split(rng)
        width = self.config.model.recogniser.embed_dim
        return {
            "recogniser": self.recogniser.init(network, to_float(batch["image"]))["params"],
            "head": 0.01 * jax.random.normal(head, (self.classes, width)),
        }

    def embed(self, params, image, cut=True):
        """float image [b h w 3] -> L2-normalised embedding [b d]. cut: see Recogniser."""
        return self.recogniser.apply({"params": params["recogniser"]}, image, cut=cut)

    def loss(self, params, frozen, batch, rng, step):
        """Margin softmax over the training identities.

        Images are augmented as the network sees them, behind its cut and resize.
        """
        del frozen, step
        image = augment(rng, self.recogniser.cut(to_float(batch["image"])))
        c = self.config.loss
        loss = losses.margin_softmax(
            self.embed(params, image, cut=False),
            params["head"],
            batch["identity"],
            c.margin,
            c.scale,
        )
        return jnp.mean(loss), ({"loss/margin": jnp.mean(loss)}, {})

    def evaluate(self, params, frozen, batch):
        """Retrieval inside the batch: the nearest other image shows the same person."""
        del frozen
        e = self.embed(params, to_float(batch["image"]))
        alone = jnp.eye(len(e), dtype=bool) | (batch["mask"][None] == 0)
        similarity = jnp.where(alone, -jnp.inf, e @ e.T)
        nearest = batch["identity"][jnp.argmax(similarity, axis=1)]
        return {"retrieval": (nearest == batch["identity"]).astype(jnp.float32)}


STAGE = IdentityStage

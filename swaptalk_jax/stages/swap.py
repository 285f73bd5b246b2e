"""Face swapping in the latent space, learned from a proxy swapper (paper III-B)."""

import jax.numpy as jnp

from swaptalk_jax import losses
from swaptalk_jax.models.swap import SwapTransformer
from swaptalk_jax.stages import Stage


class SwapStage(Stage):
    """params: swap. Trains on `swaps`: codes of (source, target, proxy's result)."""

    view = "swaps"

    def __init__(self, config):
        super().__init__(config)
        self.swap = self.build(SwapTransformer, "swap")
        self.vqgan = self.frozen("vqgan")
        self.recogniser = self.frozen("recogniser")

    def load_frozen(self):
        """Codebooks and decoder, and the recogniser behind the identity losses."""
        return {"vqgan": self.vqgan.params(), "recogniser": self.recogniser.params()}

    def lookup(self, nets, codes):
        """Codes [b h w] -> VQ-embeddings [b h w d]."""
        return self.vqgan.apply(nets["vqgan"], codes, method="lookup")

    def init(self, rng, batch):
        """Parameters from one batch of triples."""
        z = self.vqgan.empty(batch["source"])
        return {"swap": self.swap.init(rng, z, z)["params"]}

    def run(self, params, nets, batch):
        """(VQ-embeddings of the result [b h w d], the same decoded [b H W 3])."""
        z = self.swap.apply(
            {"params": params["swap"]},
            self.lookup(nets, batch["source"]),
            self.lookup(nets, batch["target"]),
        )
        return z, self.vqgan.apply(nets["vqgan"], z, method="decode")

    def terms(self, nets, batch, z, image):
        """The three terms of eq. 10, each per example [b]; all vanish at the proxy's result.

        (The first identity term vanishes there only as far as the proxy keeps the source.)
        """
        embedding = self.recogniser.apply(nets["recogniser"], image)
        return {
            "proxy": losses.code(z, self.lookup(nets, batch["result"])),
            "id_source": losses.identity(embedding, batch["id_source"]),
            "id_result": losses.identity(embedding, batch["id_result"]),
        }

    def loss(self, params, nets, batch, rng, step):
        """Eq. 10."""
        del rng, step
        c = self.config.loss
        terms = {
            k: jnp.mean(v)
            for k, v in self.terms(nets, batch, *self.run(params, nets, batch)).items()
        }
        total = (
            c.proxy * terms["proxy"]
            + c.id_source * terms["id_source"]
            + c.id_result * terms["id_result"]
        )
        return total, ({f"loss/{k}": v for k, v in terms.items()}, {})

    def evaluate(self, params, nets, batch):
        """The terms, and the proxy's error relative to leaving the target as it is."""
        z, image = self.run(params, nets, batch)
        terms = self.terms(nets, batch, z, image)
        unchanged = losses.code(
            self.lookup(nets, batch["target"]), self.lookup(nets, batch["result"])
        )
        return {
            "proxy": terms["proxy"],
            "proxy_unchanged": unchanged,
            "id_source": 1.0 - terms["id_source"],
            "id_result": 1.0 - terms["id_result"],
        }

    def pictures(self, params, nets, batch):
        """Source, target, proxy's result, our result."""
        batch = {k: v[:8] for k, v in batch.items()}
        known = [
            self.vqgan.apply(nets["vqgan"], self.lookup(nets, batch[k]), method="decode")
            for k in ("source", "target", "result")
        ]
        return [*known, self.run(params, nets, batch)[1]]


STAGE = SwapStage

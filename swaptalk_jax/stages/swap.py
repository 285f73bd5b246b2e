"""Face swapping in the latent space, learned from a proxy swapper (paper III-B)."""

import jax.numpy as jnp

from swaptalk_jax.stages import Stage, losses


class SwapStage(Stage):
    """params: swap. Trains on `swaps`: codes of (source, target, proxy's result)."""

    view = "swaps"
    frozen = ("vqgan", "recogniser")  # codebooks and decoder; behind the identity losses
    bundled, file = ("swap",), "swap"
    learns = "loss/proxy"
    worth = ("val/proxy", -1, 0.1)
    copies = ("val/proxy", "val/proxy_unchanged", "target")

    def __init__(self, config, networks, metadata=None):
        super().__init__(config, networks, metadata)
        self.swap = self.build("swap")
        self.vqgan, self.recogniser = (self.networks[slot] for slot in self.frozen)

    def lookup(self, nets, codes):
        """Codes [b h w] -> VQ-embeddings [b h w d]."""
        return self.vqgan.apply(nets["vqgan"], codes, method="lookup")

    def init(self, rng, batch):
        """Parameters from one batch of triples."""
        z = self.vqgan.empty(batch["source"])
        return {"swap": self.swap.init(rng, z, z)["params"]}

    def run(self, params, nets, batch):
        """VQ-embeddings of the result [b h w d]."""
        source, target = (self.lookup(nets, batch[k]) for k in ("source", "target"))
        return self.swap.apply({"params": params["swap"]}, source, target)

    def decode(self, nets, z):
        """VQ-embeddings -> images [b H W 3]."""
        return self.vqgan.apply(nets["vqgan"], z, method="decode")

    def proxy(self, nets, batch, z):
        """L_proxy (eq. 8) per example [b]; 0 at the proxy's result."""
        return losses.code(z, self.lookup(nets, batch["result"]))

    def identities(self, nets, batch, z):
        """(L_id_src, L_id_res) of eq. 9, per example [b]; 0 where the face is the source's."""
        embedding = self.recogniser.apply(nets["recogniser"], self.decode(nets, z))
        return [losses.identity(embedding, batch[k]) for k in ("id_source", "id_result")]

    def loss(self, params, nets, batch, rng, step):
        """Eq. 10; the identity terms on the first `id_examples` of the batch (0: on all).

        Where both weigh 0, nothing is decoded.

        Decoding an example and its way back cost about what the transformer does (0.06 s each on
        one core at 64 px), and an identity needs fewer examples than the proxy's codes do. For one
        device: on several, a few examples have to be shared out anew.
        """
        del rng, step
        c = self.config.loss
        z = self.run(params, nets, batch)
        proxy = jnp.mean(self.proxy(nets, batch, z))
        if not (c.id_source or c.id_result):
            return c.proxy * proxy, ({"loss/proxy": proxy}, {})
        few = slice(c.id_examples or None)
        id_losses = self.identities(nets, {k: v[few] for k, v in batch.items()}, z[few])
        id_source, id_result = map(jnp.mean, id_losses)
        total = c.proxy * proxy + c.id_source * id_source + c.id_result * id_result
        metrics = {"loss/proxy": proxy, "loss/id_source": id_source, "loss/id_result": id_result}
        return total, (metrics, {})

    def evaluate(self, params, nets, batch):
        """The proxy's error, that of the target as it is, and the identity similarities."""
        z = self.run(params, nets, batch)
        id_source, id_result = self.identities(nets, batch, z)
        return {
            "proxy": self.proxy(nets, batch, z),
            "proxy_unchanged": self.proxy(nets, batch, self.lookup(nets, batch["target"])),
            "id_source": 1.0 - id_source,
            "id_result": 1.0 - id_result,
        }

    def pictures(self, params, nets, batch):
        """Source, target, proxy's result, our result."""
        batch = {k: v[:8] for k, v in batch.items()}
        known = [self.lookup(nets, batch[k]) for k in ("source", "target", "result")]
        return [self.decode(nets, z) for z in (*known, self.run(params, nets, batch))]


STAGE = SwapStage

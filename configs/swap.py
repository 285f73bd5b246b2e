"""Face swapping in the latent space, learned from a proxy swapper (paper III-B, eq. 7-10).

    python -m swaptalk_jax.train --config=configs/swap.py

Needs: code shards with triples (swaptalk_jax.encode), the VQGAN, the recogniser. Parameters at the
paper's size: swap 26.1 M.
Tiny, unseen people: identity retrieval 1.0, 21.3 dB (unchanged target 16.3).
"""

from configs import common


def get_config(size=""):
    """The config of a size: paper (the default), small, tiny or micro."""
    size = common.size_name(size)
    c = common.config("swap", size)
    common.needs(c, "data", "identity", "vqgan", "codes")
    c.frozen = {"vqgan": f"{c.root}/vqgan", "recogniser": f"{c.root}/identity"}
    c.remat = size == "paper"  # of the decoder behind the identity losses, too
    c.model = {
        "swap": {
            "paper": net(blocks=8, width=512, heads=8, embed_dim=256, grid=(32, 32)),
            "small": net(blocks=4, width=128, heads=4, embed_dim=64, grid=(32, 32)),
            "tiny": net(blocks=3, width=96, heads=4, embed_dim=64, grid=(16, 16)),
            "micro": net(blocks=1, width=16, heads=2, embed_dim=16, grid=(16, 16)),
        }[size]
    }
    common.complete(c)
    if size != "paper":
        c.model.swap.update(shared_linear=True, equal_start=True, residual=True)
    c.loss = {"proxy": 1.0, "id_source": 0.5, "id_result": 0.5, "id_examples": 0}
    c.optimizer.default = common.adam(1e-4, warmup=1000)  # post-norm needs the warm-up
    if size != "paper":
        # Tiny, 600 steps, unseen people: dlib's recogniser named the
        # source in 73 % of results with 0.2, in 60 % with 0.05; L_proxy was 0.036 and 0.031.
        # The classical proxy changes the face alone, a quarter of the synthetic set's L_proxy.
        weight = 0.05 if size == "small" else 0.2
        c.loss.update(id_source=weight, id_result=weight, id_examples=2)
        c.optimizer.default = common.muon(0.01, 2e-3, warmup=100, clip=1.0, decay=True)
    c.train.update(
        {
            "paper": {"steps": 200_000, "batch_size": 8, "eval_batch_size": 16},
            "small": {"steps": 300, "batch_size": 8, "eval_batch_size": 16},
            "tiny": {"steps": 600, "batch_size": 8, "eval_batch_size": 16},
            "micro": {"steps": 4, "batch_size": 2, "eval_batch_size": 2},
        }[size]
    )
    return c


def net(blocks, width, heads, embed_dim, grid):
    """A transformer whose feed-forward width is 4 x its width."""
    return {
        "blocks": blocks,
        "width": width,
        "heads": heads,
        "ffn_width": 4 * width,
        "embed_dim": embed_dim,
        "grid": grid,
    }

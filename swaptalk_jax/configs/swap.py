"""Face swapping in the latent space, learned from a proxy swapper (paper III-B, eq. 7-10).

    python -m swaptalk_jax.train --config=configs/swap.py

Needs: code shards with triples (swaptalk_jax.encode), the VQGAN, the recogniser. Parameters at the
paper's size: swap 26.1 M.
Tiny, unseen people: 27.2 dB (unchanged target 20.8).

Where the smaller sizes depart from the paper:
- open: SFace for ArcFace; a classical proxy for Roop.
- small, live, demo, tiny, micro: our own recogniser for ArcFace, the same one that swaps are
  encoded with.
- small: a classical proxy for Roop; live, tiny, micro: the exact swap that a synthetic set knows.
- live, demo, tiny, micro: no identity losses. The exact swap keeps the target's hair and outline,
  by which our recogniser knows people.
- small, live, demo, tiny, micro: one linear layer for source and target (`shared_linear`), for one
  at each.
- small, live, demo, tiny, micro: query, key and value start equal (`equal_start`).
- small, live, demo, tiny, micro: outputs that gate the target and the source (`residual`) for drawn
  ones.
- small, live, demo, tiny, micro: linear layers also see the cells around theirs (`reach`).
- small, live, demo, tiny, micro: identity losses on two examples of a batch, and of other weights.
- small, live, demo, tiny, micro: Muon for kernels, and rates that fall to zero, for Adam at a
  constant rate.
- small, live, demo, tiny, micro: four, two, four, three and one blocks for eight; 128, 96, 160, 96
  and 16 channels for 512.
"""

from swaptalk_jax.configs import common


def get_config(size=""):
    """The config of a size: paper (the default), open, small, live, demo, tiny or micro."""
    size = common.size_name(size)
    c = common.config("swap", size)
    c.needs = ("data", "vqgan", "codes")
    if not common.full(size):
        c.needs = ("data", "identity", "vqgan", "codes")
    c.frozen = {"vqgan": common.below(c, "vqgan"), "recogniser": common.recogniser(c)}
    c.agreed += (("frozen.recogniser", c.frozen.recogniser),)
    c.remat = common.full(size)  # of the decoder behind the identity losses, too
    c.model = model(size)
    # Weights of eq. 10 (ours); how many of a batch have identity losses, 0: all.
    c.loss = {"proxy": 1.0, "id_source": 0.5, "id_result": 0.5, "id_examples": 0}
    # The rate is ours. Post-norm needs the warm-up.
    c.optimizer.default = common.adam(lr=1e-4, warmup=1000)
    if not common.full(size):
        # The exact swap keeps the target's hair and outline, which the recogniser sees, too. Tiny,
        # unseen people: L_proxy is 0.0056 after 700 steps. With an id_result of 0.4 it is 0.0107
        # after 600, and the recogniser finds the result less like the proxy's.
        weight = 0.0 if size in common.SYNTHETIC else 0.05
        c.loss.update(id_source=weight, id_result=weight, id_examples=2)
        c.optimizer.default = common.muon(muon_lr=0.01, lr=2e-3, warmup=100, clip=1.0, decay=True)
    c.train.update(
        common.by_size(
            size,
            paper=dict(steps=200_000, batch_size=8, eval_batch_size=16),
            small=dict(steps=300, batch_size=8, eval_batch_size=16),
            live=dict(steps=600, batch_size=8, eval_batch_size=16),
            demo=dict(steps=4000, batch_size=8, eval_batch_size=16),
            tiny=dict(steps=600, batch_size=8, eval_batch_size=16),
            micro=dict(steps=4, batch_size=2, eval_batch_size=2),
        )
    )
    return c


def model(size):
    """The numbers of the transformer."""
    least = dict(
        network="SwapTransformer",
        heads=4,
        embed_dim=64,
        grid=(16, 16),
        shared_linear=True,
        equal_start=True,
        residual=True,
        reach=1,
    )
    return {
        "swap": common.by_size(
            size,
            paper=dict(
                network="SwapTransformer",
                blocks=8,
                width=512,
                heads=8,
                ffn_width=2048,
                embed_dim=256,
                grid=(32, 32),
                shared_linear=False,
                equal_start=False,
                residual=False,
                reach=0,
            ),
            small=dict(least, blocks=4, width=128, ffn_width=512, grid=(32, 32)),
            live=dict(least, blocks=2, width=96, ffn_width=384),
            demo=dict(least, blocks=4, width=160, ffn_width=640, embed_dim=96),
            tiny=dict(least, blocks=3, width=96, ffn_width=384),
            micro=dict(least, blocks=1, width=16, ffn_width=64, heads=2, embed_dim=16),
        )
    }

"""Lip-sync in the latent space (paper III-C, eq. 11-16).

    python -m swaptalk_jax.train --config=configs/sync.py

Parameters at the paper's size: warp 9.5 M, unet 213.3 M.
Tiny, unseen people: mouth error ratio 0.45.
Needs: code shards (swaptalk_jax.encode), the VQGAN, the expert. The swap module is no input of
this training but of what follows it, so `:tiny` builds it on the way.
"""

from configs import common


def get_config(size=""):
    """The config of a size: paper (the default), small, tiny or micro."""
    size = common.size_name(size)
    c = common.config("sync", size)
    common.needs(c, "data", "identity", "vqgan", "codes", "expert", "swap")
    if size in ("paper", "small"):
        common.needs(c, "data", "vqgan", "codes", "expert")
    c.frozen = {"vqgan": f"{c.root}/vqgan", "expert": f"{c.root}/expert"}
    c.model = {
        "warp": {
            "paper": {"width": 128},
            "small": {"width": 32},
            "tiny": {"width": 16},
            "micro": {"width": 8},
        }[size],
        "unet": {
            "paper": net(192, (1, 2, 4), 2, (1, 2), 8, 512, 256),
            "small": net(48, (1, 2, 4), 1, (1, 2), 4, 96, 64),
            "tiny": net(40, (1, 2), 1, (1,), 4, 64, 64),
            "micro": net(8, (1, 2), 1, (1,), 2, 16, 16),
        }[size],
    }
    common.complete(c)
    # The paper's rules for inference; below its size what measured best at :tiny.
    c.inference = {"warp": "never", "quantize": False}
    if size != "paper":
        c.model.warp.attention = True
        c.model.unet.update(groups=0, residual=True)
        c.inference = {"warp": "self", "quantize": True}
    c.loss = {"code": 1.0, "sync": 0.03, "mouth": 1.0}
    c.optimizer.default = common.adam(1e-4)
    if size != "paper":
        c.optimizer.default = common.muon(0.005, 2e-3, warmup=50, decay=True)
    if size in ("small", "tiny"):
        # The expert's pull on lips that are still far off seems to drown the codes. L_code on
        # unseen people: 0.177 after 450 steps with it (Adam, lr 1e-3), 0.131 after 480 without
        # (Adam, lr 2e-3), both on an earlier VQGAN's codes.
        c.loss.sync = 0.0
        c.loss.mouth = 8.0  # of a third of the cells, which is what a viewer looks at
    c.train.update(
        {
            "paper": {"steps": 200_000, "batch_size": 20, "eval_batch_size": 20},
            "small": {"steps": 400, "batch_size": 8, "eval_batch_size": 16},
            "tiny": {"steps": 750, "batch_size": 8, "eval_batch_size": 16},
            "micro": {"steps": 4, "batch_size": 2, "eval_batch_size": 2},
        }[size]
    )
    return c


def net(width, multipliers, blocks, attention_levels, heads, context_width, embed_dim):
    """The latent-diffusion UNet's numbers."""
    return {
        "width": width,
        "multipliers": multipliers,
        "blocks": blocks,
        "attention_levels": attention_levels,
        "heads": heads,
        "context_width": context_width,
        "embed_dim": embed_dim,
    }

"""VQ-lip expert: five frames of the lower half against their sound (paper III-C).

    python -m swaptalk_jax.train --config=configs/expert.py

Needs: code shards (swaptalk_jax.encode), the VQGAN. Parameters at the paper's size: expert 22.8 M.
Tiny, unseen people: accuracy 0.94.
"""

from configs import common


def get_config(size=""):
    """The config of a size: paper (the default), small, tiny or micro."""
    size = common.size_name(size)
    c = common.config("expert", size)
    common.needs(c, "data", "vqgan", "codes")
    c.frozen = {"vqgan": f"{c.root}/vqgan"}
    c.model = {
        "expert": {
            "paper": net(width=128, multipliers=(1, 2, 4, 4), audio_width=512, embed_dim=512),
            "small": net(width=32, multipliers=(1, 2, 4, 4), audio_width=128, embed_dim=256),
            "tiny": net(width=32, multipliers=(1, 2, 4), audio_width=128, embed_dim=128),
            "micro": net(width=8, multipliers=(1, 2), audio_width=16, embed_dim=16),
        }[size]
    }
    common.complete(c)
    # InfoNCE beside the cross-entropy (0: the paper's training). Tiny, 240 of 360 steps, unseen
    # people, an earlier VQGAN's codes: accuracy 0.86 with it, 0.79 without.
    c.loss = {"contrast": 0.0 if size == "paper" else 0.5}
    c.optimizer.default = common.adam(1e-4, warmup=50, clip=1.0)
    if size != "paper":
        c.optimizer.default = common.muon(0.02, 2e-3, warmup=50, decay=True)
    c.train.update(
        {
            "paper": {"steps": 200_000, "batch_size": 256, "eval_batch_size": 256},
            "small": {"steps": 400, "batch_size": 64, "eval_batch_size": 64},
            "tiny": {"steps": 600, "batch_size": 64, "eval_batch_size": 64},
            "micro": {"steps": 4, "batch_size": 4, "eval_batch_size": 4},
        }[size]
    )
    return c


def net(width, multipliers, audio_width, embed_dim):
    """The two encoders' numbers."""
    return {
        "width": width,
        "multipliers": multipliers,
        "audio_width": audio_width,
        "embed_dim": embed_dim,
    }

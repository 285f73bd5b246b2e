"""Recogniser behind the identity losses (iResNet, ArcFace margin; GroupNorm for BatchNorm).

    python -m swaptalk_jax.train --config=configs/identity.py

Needs: face shards (data_pipelines.build). Parameters at the paper's size: recogniser 43.6 M.
"""

from configs import common

# Three quarters of the crop: 48 of 64 pixels, cut without a resize.
INNER = {"box": (0.125, 0.125, 0.875, 0.875)}


def get_config(size=""):
    """The config of a size: paper (the default), small, tiny or micro."""
    size = common.size_name(size)
    c = common.config("identity", size)
    common.needs(c, "data")
    c.model = {
        "recogniser": {
            "paper": {"stages": (3, 4, 14, 3), "width": 64, "embed_dim": 512, "input_size": 112},
            "small": {"stages": (1, 1, 1, 1), "width": 24, "embed_dim": 128, "input_size": 64},
            "tiny": {"stages": (1, 1, 1, 1), "width": 24, "embed_dim": 128, "input_size": 48}
            | INNER,
            "micro": {"stages": (1, 1), "width": 8, "embed_dim": 16, "input_size": 24} | INNER,
        }[size]
    }
    common.complete(c)
    c.loss = {"margin": 0.5 if size == "paper" else 0.3, "scale": 64.0 if size == "paper" else 24.0}
    c.optimizer.default = common.adam(1e-3, warmup=50, clip=1.0, decay=True)
    c.train.update(
        {
            "paper": {"steps": 100_000, "batch_size": 512, "eval_batch_size": 512},
            "small": {"steps": 200, "batch_size": 32, "eval_batch_size": 64},
            "tiny": {"steps": 150, "batch_size": 32, "eval_batch_size": 128},
            "micro": {"steps": 4, "batch_size": 4, "eval_batch_size": 4},
        }[size]
    )
    return c

"""Recogniser behind the identity losses (iResNet, ArcFace margin; GroupNorm for BatchNorm).

    python -m swaptalk_jax.train --config=configs/identity.py

Needs: face shards (data_pipelines.build). Parameters at the paper's size: recogniser 43.6 M.
The paper takes a finished ArcFace, and so do the sizes `paper` and `open`: no other stage asks for
this one there. It can still be trained, and taken with --config.frozen.recogniser.

Where the smaller sizes depart from the paper:
- small, live, demo, tiny, micro: this recogniser stands for ArcFace.
- small, live, demo, tiny, micro: four units or two, 24, 16 (tiny) or 8 channels, embeddings of
  128 or 16 numbers.
- small, live, demo, tiny, micro: margin 0.3 and scale 24 for ArcFace's 0.5 and 64, as there are few
  people.
- small, live, demo, tiny, micro: inputs of 64, 64, 64, 48 and 24 px for 112.
- demo, tiny, micro: three quarters of the crop are seen, cut without a resize.
"""

from swaptalk_jax.configs import common

WIDE = (0.1, 0.1, 0.9, 0.9)  # about what ArcFace's alignment shows
INNER = (0.125, 0.125, 0.875, 0.875)  # 48 of 64 pixels


def get_config(size=""):
    """The config of a size: paper (the default), open, small, live, demo, tiny or micro."""
    size = common.size_name(size)
    c = common.config("identity", size)
    c.needs = ("data",)
    c.model = {
        "recogniser": {
            "network": "Recogniser",
            **common.by_size(
                size,
                paper=dict(stages=(3, 4, 14, 3), width=64, embed_dim=512, input_size=112, box=WIDE),
                small=dict(stages=(1,) * 4, width=24, embed_dim=128, input_size=64, box=WIDE),
                live=dict(stages=(1,) * 4, width=24, embed_dim=128, input_size=64, box=WIDE),
                demo=dict(stages=(1,) * 4, width=24, embed_dim=128, input_size=64, box=INNER),
                tiny=dict(stages=(1,) * 4, width=16, embed_dim=128, input_size=48, box=INNER),
                micro=dict(stages=(1, 1), width=8, embed_dim=16, input_size=24, box=INNER),
            ),
        }
    }
    c.loss = {"margin": 0.3, "scale": 24.0}
    if common.full(size):
        c.loss = {"margin": 0.5, "scale": 64.0}
    c.optimizer.default = common.adam(lr=1e-3, warmup=50, clip=1.0, decay=True)
    c.train.update(
        common.by_size(
            size,
            paper=dict(steps=100_000, batch_size=512, eval_batch_size=512),
            small=dict(steps=200, batch_size=32, eval_batch_size=64),
            live=dict(steps=150, batch_size=32, eval_batch_size=128),
            demo=dict(steps=400, batch_size=32, eval_batch_size=128),
            tiny=dict(steps=150, batch_size=32, eval_batch_size=128),
            micro=dict(steps=4, batch_size=4, eval_batch_size=4),
        )
    )
    return c

"""VQGAN: one shared encoder on each half of the face, two codebooks, one decoder (paper III-A).

    python -m swaptalk_jax.train --config=configs/vqgan.py

Parameters at the paper's size: vqgan 72.8 M, discriminator 2.8 M.
Needs: face shards, the recogniser. `config.frozen.perceptual` names the folder of an installed
perceptual network (`python -m swaptalk_jax.pretrained list`); without it, edge maps stand in.
`config.init_from` names the folder of a VQGAN to start from, such as an installed vqgan_f16 (codes
of its own start are taken with --config.model.vqgan.codes=16384).
Tiny, unseen people: 30.3 to 30.7 dB, by processor.
The paper's f = 8 variant: --config.model.vqgan.multipliers="(1, 1, 2, 4)".
"""

from configs import common


def get_config(size=""):
    """The config of a size: paper (the default), small, tiny or micro."""
    size = common.size_name(size)
    c = common.config("vqgan", size)
    common.needs(c, "data", "identity")
    c.frozen = {"recogniser": f"{c.root}/identity", "perceptual": ""}
    c.init_from = ""
    c.remat = size == "paper"
    c.model = {
        "vqgan": {
            "paper": {
                "width": 128,
                "multipliers": (1, 1, 2, 2, 4),
                "patch": 1,
                "shortcut": False,
                "blocks": 2,
                "attention": True,
                "embed_dim": 256,
                "codes": 2048,
            },
            "small": net(width=32, multipliers=(1, 2), embed_dim=64, codes=1024, patch=2),
            "tiny": net(width=48, multipliers=(1, 2), embed_dim=64, codes=2048, patch=2),
            "micro": net(width=8, multipliers=(1, 2), embed_dim=16, codes=32),
        }[size],
        "discriminator": {
            "paper": {"width": 64, "layers": 3},
            "small": {"width": 16, "layers": 2},
            "tiny": {"width": 16, "layers": 2},
            "micro": {"width": 8, "layers": 1},
        }[size],
    }
    common.complete(c)
    steps = {"paper": 500_000, "small": 1200, "tiny": 300, "micro": 4}[size]
    c.loss = loss(size, steps)
    c.optimizer = {
        # 4.5e-6 x global batch, as in taming-transformers
        "default": common.adam(4.5e-6 * 12, b1=0.5, b2=0.9),
        "constant": ("code_age", "code_means"),
    }
    if size != "paper":
        c.optimizer.default = common.adam(2e-3, b2=0.99, warmup=30, clip=1.0, decay=True)
        c.optimizer.discriminator = common.adam(2e-4, b1=0.5, b2=0.9)
    c.train.update(
        {
            "paper": {"batch_size": 12, "eval_batch_size": 16},
            "small": {"batch_size": 4, "eval_batch_size": 16},
            "tiny": {"batch_size": 8, "eval_batch_size": 16},
            "micro": {"batch_size": 2, "eval_batch_size": 2},
        }[size],
        steps=steps,
    )
    return c


def loss(size, steps):
    """Weights of eq. 6, and how codes move where they don't follow its gradient."""
    paper = {
        "perceptual": 1.0,
        "edges": 0.0,  # of edge maps beside a perceptual network; without one they stand in, at 1
        "perceptual_examples": 0,  # how many of a batch the perceptual network sees; 0: all
        "vq": 1.0,
        "beta": 0.25,
        "id": 0.1,
        "adversarial": 0.8,
        "adversarial_start": steps // 10,
        "restart_after": 1000,
        "codebook_decay": 0.0,  # of running averages of the encoder; 0: the gradient of eq. 4
        "mouth": 1.0,  # how much more a mouth's cells count in these averages
    }
    if size == "paper":
        return paper
    return paper | {
        "adversarial": 0.05,  # a picture of 64 px has no texture for a critic to ask for
        "adversarial_start": steps * 8 // 10,
        "restart_after": 20,
        "codebook_decay": 0.95,
        # VGG16 takes four times as long as the rest of small's step on all four images. Alone, at
        # 1, it had colours wander: small, 1000 steps, unseen people: 24.1 dB; edges alone 27.3.
        "perceptual": 0.1,
        "edges": 1.0,
        "perceptual_examples": 1,
        # Mouths are a third of the lower half's cells. Tiny, 300 steps: squared error in the
        # mouth's box 82 with 8, 96 with 1. Not tried at `small`.
        "mouth": 1.0 if size == "small" else 8.0,
    }


def net(width, multipliers, embed_dim, codes, patch=1):
    """A small VQGAN: one block a level, no attention (its grid is small, its time short)."""
    return {
        "width": width,
        "multipliers": multipliers,
        "patch": patch,
        "shortcut": True,
        "blocks": 1,
        "attention": False,
        "embed_dim": embed_dim,
        "codes": codes,
    }

"""VQGAN: one shared encoder on each half of the face, two codebooks, one decoder (paper III-A).

    python -m swaptalk_jax.train --config=configs/vqgan.py

Parameters at the paper's size: vqgan 72.8 M, discriminator 2.8 M.
Needs: face shards, the recogniser, and the perceptual network that `config.frozen.perceptual` names
by its folder (`python -m swaptalk_jax.pretrained list`); where it is "", edge maps stand in.
`config.init_from` names the folder of a VQGAN to start from, such as an installed vqgan_f16 (codes
of its own start are taken with --config.model.vqgan.codes=16384).
`config.distil.teacher` names the folder of a larger VQGAN's run for images of the same size, whose
pictures this one learns, too. Codes may differ.
Tiny, unseen people: 38.3 dB.
The paper's f = 8 variant: --config.model.vqgan.multipliers="(1, 1, 2, 4)" with another
--config.root; its swap has --config.model.swap.grid="(64, 64)".

Where the smaller sizes depart from the paper:
- open: SFace for ArcFace; stlpips for VGG16.
- small, live, demo, tiny, micro: our own recogniser for ArcFace; edge maps for VGG16.
- small, tiny: f = 4; demo: f = 8; micro: f = 2. The paper has f = 16 and 8, live f = 16.
- small, live, demo, tiny: the outermost convolutions read and write patches of 2 x 2 pixels, live
  and demo of 4 x 4.
- small, live, demo, tiny: four codes a cell, demo eight, each for what those before it leave
  (`depth`).
- small, live, demo, tiny, micro: a linear shortcut from pixels to z and back, no attention, one
  block a level.
- small, live, demo, tiny, micro: embeddings of 64, 96 (demo) or 16 numbers for 256; codebooks of 4
  x 256 (small), 4 x 512, 8 x 512 (demo) or 32 codes.
- small, live, demo, tiny, micro: codes are running averages of encoder outputs, restarted after 20
  steps.
- small, live, demo, tiny: noise on what the decoder gets, so that it forgives.
- live, demo, tiny, micro: mouths weigh eight times as much in these averages.
- small, live, micro: the critic weighs 0.05 and joins after 80 % of the steps, not after 10 %.
- demo, tiny: no critic.
- demo, tiny: half as many channels in the encoder as in the decoder (`encoder_width`).
- small, live, demo, tiny, micro: a rate of 2e-3 that falls to zero, other momenta and a critic of
  its own rate.
"""

from swaptalk_jax.configs import common


def get_config(size=""):
    """The config of a size: paper (the default), open, small, live, demo, tiny or micro."""
    size = common.size_name(size)
    c = common.config("vqgan", size)
    c.needs = ("data",) if common.full(size) else ("data", "identity")
    c.frozen = {
        "recogniser": common.recogniser(c),
        "perceptual": common.public(c, "perceptual"),
    }
    c.agreed += (("frozen.recogniser", c.frozen.recogniser),)
    c.init_from = ""
    c.distil = common.distillation()
    c.remat = common.full(size)
    c.model = model(size)
    c.loss = loss(size)
    c.optimizer = {
        "default": common.adam(lr=2e-3, b2=0.99, warmup=30, clip=1.0, decay=True),
        "discriminator": common.adam(lr=2e-4, b1=0.5, b2=0.9),
        "constant": ("code_age", "code_means"),
    }
    if common.full(size):
        # The rate is ours, as in taming-transformers.
        c.optimizer.default = common.adam(lr_per_example=4.5e-6, b1=0.5, b2=0.9)
        del c.optimizer.discriminator
    c.train.update(
        common.by_size(
            size,
            paper=dict(steps=500_000, batch_size=12, eval_batch_size=16),
            small=dict(steps=1200, batch_size=4, eval_batch_size=16),
            live=dict(steps=600, batch_size=8, eval_batch_size=16),
            demo=dict(steps=2400, batch_size=8, eval_batch_size=16),
            tiny=dict(steps=300, batch_size=8, eval_batch_size=16),
            micro=dict(steps=4, batch_size=2, eval_batch_size=2),
        )
    )
    return c


def model(size):
    """The numbers of both networks."""
    critic = dict(network="PatchDiscriminator", layers=2)
    least = dict(
        network="VQGAN",
        encoder_width=0,
        multipliers=(1, 2),
        patch=2,
        shortcut=True,
        depth=4,
        blocks=1,
        attention=False,
        embed_dim=64,
    )
    return {
        "vqgan": common.by_size(
            size,
            paper=dict(
                network="VQGAN",
                width=128,
                multipliers=(1, 1, 2, 2, 4),
                encoder_width=0,
                patch=1,
                shortcut=False,
                blocks=2,
                attention=True,
                embed_dim=256,
                codes=2048,
                depth=1,
            ),
            small=dict(least, width=32, codes=256),
            live=dict(least, width=24, multipliers=(1, 1, 2), patch=4, codes=512),
            demo=dict(least, width=64, encoder_width=32, patch=4, embed_dim=96, codes=512, depth=8),
            tiny=dict(least, width=48, encoder_width=24, codes=512),
            micro=dict(least, width=8, codes=32, depth=1, patch=1, embed_dim=16),
        ),
        "discriminator": common.by_size(
            size,
            paper=dict(critic, width=64, layers=3),
            small=dict(critic, width=16),
            live=dict(critic, width=16),
            demo=dict(critic, width=16),
            tiny=dict(critic, width=16),
            micro=dict(critic, width=8, layers=1),
        ),
    }


def loss(size):
    """Weights of eq. 6, and how codes move where they don't follow its gradient."""
    paper = {
        "perceptual": 1.0,  # ours
        "edges": 0.0,  # of edge maps beside a perceptual network; without one they stand in, at 1
        "perceptual_examples": 0,  # how many of a batch the perceptual network sees; 0: all
        "vq": 1.0,  # ours
        "beta": 0.25,
        "id": 0.1,  # ours
        "adversarial": 0.8,  # ours
        "adversarial_start_share": 0.1,  # of the steps, after which the discriminator joins
        "restart_after": 1000,
        "codebook_decay": 0.0,  # of running averages of the encoder; 0: the gradient of eq. 4
        "noise": 0.0,  # on what the decoder gets, by the spread of z
        "mouth": 1.0,  # how much more a mouth's cells count in these averages
    }
    if common.full(size):
        return paper
    return paper | {
        "adversarial": 0.05,  # a picture of 64 px has no texture for a critic to ask for
        # Tiny, 300 steps, unseen people: 35.0 dB with and without a critic from 80 % on.
        "adversarial_start_share": 1.0 if size in ("demo", "tiny") else 0.8,
        # Tiny, 300 steps, unseen people: blockiness 1.15, without 1.17; 37.8 dB with and without.
        # None at micro, whose runs are compared to the last digits.
        "noise": 0.0 if size == "micro" else 0.2,
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

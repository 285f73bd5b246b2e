"""Lip-sync in the latent space (paper III-C, eq. 11-16).

    python -m swaptalk_jax.train --config=configs/sync.py

Parameters at the paper's size: warp 9.5 M, unet 213.6 M.
Tiny, unseen people: mouth error ratio 0.34.
Needs: code shards (swaptalk_jax.encode), the VQGAN, the expert. The swap module is no input of
this training but of what follows it, so `:tiny` builds it on the way.
`config.bundle` names the folders of what swaptalk_jax.export takes beside these.
`config.distil.teacher` names the folder of a larger sync's run on the same codes, whose lips this
one learns, too.

Where the smaller sizes depart from the paper:
- open: hears by Whisper's encoder for HuBERT.
- small, live, demo, tiny, micro: hear by log-mel for HuBERT.
- small, live, demo, tiny, micro: the UNet scales and shifts the warped reference (`residual`), for
  drawn lips.
- small, live, demo, tiny, micro: attention in the warp's offset encoder; norms of at least 4
  channels a group.
- small, live, demo, tiny, micro: inference warps in self mode and puts swapped faces on codes
  first.
- small, live, demo, tiny: no expert loss (L_sync of eq. 15 weighs 0).
- small, live, demo, tiny: three frames of a window have a loss, not all five.
- live, demo, tiny: in two windows of a batch the faces are swapped first.
- small, live, demo, tiny: cells of the mouth weigh eight times as much in L_code as the others.
- small, live, demo, tiny, micro: Muon for kernels, and rates that fall to zero, for Adam at a
  constant rate.
- small, live, demo, tiny, micro: 48, 32, 48, 40 and 8 channels for 192; one block a level for two.
- live, demo, tiny, micro: two levels for three, with attention in one for two.
"""

from swaptalk_jax.configs import common


def get_config(size=""):
    """The config of a size: paper (the default), open, small, live, demo, tiny or micro."""
    size = common.size_name(size)
    c = common.config("sync", size)
    c.needs = ("data", "vqgan", "codes", "expert")
    if c.build_upstream:
        c.needs = ("data", "identity", "vqgan", "codes", "expert", "swap")
    c.frozen = {"vqgan": common.below(c, "vqgan"), "expert": common.below(c, "expert")}
    c.bundle = {"swap": common.below(c, "swap")}
    c.distil = common.distillation()
    c.model = model(size)
    # The paper's rules for inference; below its size what measured best at :tiny.
    c.inference = {"warp": "self", "quantize": True}
    if common.full(size):
        c.inference = {"warp": "never", "quantize": False}
    # Weights of eq. 16 (ours), and of a mouth's cells in L_code. frames: how many of a window's
    # frames have a loss, 0: all. swapped: windows of a batch whose faces are swapped first.
    c.loss = {"code": 1.0, "sync": 0.03, "mouth": 1.0, "frames": 0, "swapped": 0}
    c.optimizer.default = common.adam(lr=2e-4)  # ours; higher than the swap's, as the text says
    if not common.full(size):
        c.optimizer.default = common.muon(muon_lr=0.005, lr=2e-3, warmup=50, decay=True)
    if size not in ("paper", "open", "micro"):
        # The expert's pull on lips that are still far off seems to drown the codes. L_code on
        # unseen people: 0.177 after 450 steps with it (Adam, lr 1e-3), 0.131 after 480 without
        # (Adam, lr 2e-3), both on an earlier VQGAN's codes.
        c.loss.sync = 0.0
        # Only the expert needs all frames of a window. Neighbours are nearly alike.
        c.loss.frames = 3
        c.loss.mouth = 8.0  # of a third of the cells, which is what a viewer looks at
    if size in common.SYNTHETIC and size != "micro":
        c.frozen.swap = c.bundle.get_ref("swap")
        c.loss.swapped = 2
    c.train.update(
        common.by_size(
            size,
            paper=dict(steps=200_000, batch_size=20, eval_batch_size=20),
            small=dict(steps=400, batch_size=8, eval_batch_size=16),
            live=dict(steps=750, batch_size=8, eval_batch_size=16),
            demo=dict(steps=2400, batch_size=8, eval_batch_size=16),
            tiny=dict(steps=750, batch_size=8, eval_batch_size=16),
            micro=dict(steps=4, batch_size=2, eval_batch_size=2),
        )
    )
    return c


def model(size):
    """The numbers of both networks."""
    warp = dict(network="FaceWarp", depth=2, attention=not common.full(size))
    least = dict(
        network="LipUNet",
        multipliers=(1, 2),
        blocks=1,
        attention_levels=(1,),
        heads=4,
        embed_dim=64,
        groups=0,
        residual=True,
    )
    return {
        "warp": common.by_size(
            size,
            paper=dict(warp, width=128),
            small=dict(warp, width=32),
            live=dict(warp, width=16),
            demo=dict(warp, width=24),
            tiny=dict(warp, width=16),
            micro=dict(warp, width=8),
        ),
        "unet": common.by_size(
            size,
            paper=dict(
                network="LipUNet",
                width=192,
                multipliers=(1, 2, 4),
                blocks=2,
                attention_levels=(1, 2),
                heads=8,
                context_width=512,
                embed_dim=256,
                groups=32,
                residual=False,
            ),
            small=dict(
                least,
                width=48,
                multipliers=(1, 2, 4),
                attention_levels=(1, 2),
                context_width=96,
            ),
            live=dict(least, width=32, context_width=64),
            demo=dict(least, width=48, context_width=64, embed_dim=96),
            tiny=dict(least, width=40, context_width=64),
            micro=dict(least, width=8, heads=2, context_width=16, embed_dim=16),
        ),
    }

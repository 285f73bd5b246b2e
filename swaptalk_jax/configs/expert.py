"""VQ-lip expert: five frames of the lower half against their sound (paper III-C).

    python -m swaptalk_jax.train --config=configs/expert.py

Needs: code shards (swaptalk_jax.encode), the VQGAN. Parameters at the paper's size: expert 23.1 M.
Tiny, unseen people: accuracy 0.95.
The paper names the expert and tells nothing of its network, its loss or its training: at every size
all numbers are chosen.

Where the smaller sizes depart from size `paper`:
- open: hears by Whisper's encoder for HuBERT.
- small, live, demo, tiny, micro: hear by log-mel for HuBERT.
- small, live, demo, tiny, micro: InfoNCE over the batch beside the cross-entropy.
- small, live, demo, tiny, micro: Muon for kernels, and rates that fall to zero, for Adam at a
  constant rate.
- small, live, demo, tiny, micro: 32 or 8 channels for 128; live, demo and tiny have three levels
  and micro two for four.
"""

from swaptalk_jax.configs import common


def get_config(size=""):
    """The config of a size: paper (the default), open, small, live, demo, tiny or micro."""
    size = common.size_name(size)
    c = common.config("expert", size)
    c.needs = ("data", "vqgan", "codes")
    c.frozen = {"vqgan": common.below(c, "vqgan")}
    least = dict(network="LipExpert", width=32, audio_width=128, audio_blocks=2)
    c.model = {
        "expert": common.by_size(
            size,
            paper=dict(least, width=128, multipliers=(1, 2, 4, 4), audio_width=512, embed_dim=512),
            small=dict(least, multipliers=(1, 2, 4, 4), embed_dim=256),
            live=dict(least, multipliers=(1, 2, 4), embed_dim=128),
            demo=dict(least, multipliers=(1, 2, 4), embed_dim=128),
            tiny=dict(least, multipliers=(1, 2, 4), embed_dim=128),
            micro=dict(least, width=8, multipliers=(1, 2), audio_width=16, embed_dim=16),
        )
    }
    # InfoNCE beside the cross-entropy. Tiny, 240 of 360 steps, unseen people, an earlier VQGAN's
    # codes: accuracy 0.86 with it, 0.79 without.
    c.loss = {"contrast": 0.0 if common.full(size) else 0.5}
    c.optimizer.default = common.muon(muon_lr=0.02, lr=2e-3, warmup=50, decay=True)
    if common.full(size):
        c.optimizer.default = common.adam(lr=1e-4, warmup=50, clip=1.0)
    c.train.update(
        common.by_size(
            size,
            paper=dict(steps=200_000, batch_size=256, eval_batch_size=256),
            small=dict(steps=400, batch_size=64, eval_batch_size=64),
            live=dict(steps=600, batch_size=64, eval_batch_size=64),
            demo=dict(steps=1200, batch_size=64, eval_batch_size=64),
            tiny=dict(steps=600, batch_size=64, eval_batch_size=64),
            micro=dict(steps=4, batch_size=4, eval_batch_size=4),
        )
    )
    return c

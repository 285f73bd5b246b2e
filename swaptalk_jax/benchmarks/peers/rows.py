"""What is compared with whom, and in which shapes: the paper's, and `small` for clips."""

import dataclasses
import functools
from collections.abc import Callable

from swaptalk_jax import sound
from swaptalk_jax.benchmarks.peers import media, ours
from swaptalk_jax.configs import common, swap, sync, vqgan

# Peer -> (its repository, a file by which a checkout of it is known).
PEERS = {
    "taming": (
        "github.com/CompVis/taming-transformers",
        "taming/modules/diffusionmodules/model.py",
    ),
    "latent-diffusion": (
        "github.com/CompVis/latent-diffusion",
        "ldm/modules/diffusionmodules/openaimodel.py",
    ),
    "wav2lip": ("github.com/Rudrabha/Wav2Lip", "models/wav2lip.py"),
    "latentsync": ("github.com/bytedance/LatentSync", "latentsync/models/unet.py"),
}
HUBERT = 768  # width of the sound's features at the paper's size
PICTURES, PIXELS = 4, 128  # a batch of the VQGAN, and its pictures' side
LIPS = 4  # examples in a batch of the UNet, of the grid of a picture of 512 px


@dataclasses.dataclass(frozen=True)
class Row:
    """One comparison.

    name: what is done. peer: a name of PEERS. task: of theirs/main.py. ours: fields -> (settle,
    work, facts), of ours.py. fields: () -> shapes for both sides. unit: what is counted; count: how
    many of them a turn makes. media: whether fields get the folders `records` and `media`.
    """

    name: str
    peer: str
    task: str
    ours: Callable
    fields: Callable
    unit: str
    count: int
    media: bool = False


def vqgan_fields():
    """Shapes of the paper's VQGAN."""
    model = vqgan.model("paper")["vqgan"]
    return {"model": model, "size": PIXELS, "count": PICTURES}


def unet_fields():
    """Shapes of the paper's lip UNet: lower halves of a picture of 512 px."""
    config = sync.get_config("paper")
    h, w = swap.model("paper")["swap"]["grid"]
    return {
        "model": sync.model("paper")["unet"],
        "grid": (h // 2, w),
        "tokens": 2 * config.data.context,
        "audio_width": HUBERT,
        "count": LIPS,
    }


def chain_fields(size, count):
    """Shapes of a size's networks from a frame to a frame, and its rules for inference."""
    config = sync.get_config(size)
    models = vqgan.model(size) | swap.model(size) | sync.model(size)
    del models["discriminator"]
    width = HUBERT if common.full(size) else sound.Features(config.data.features).width
    return {
        "model": models,
        "size": common.IMAGE_SIZE[size],
        "warp": config.inference.warp != "never",
        "quantize": config.inference.quantize,
        "tokens": 2 * config.data.context,
        "audio_width": width,
        "count": count,
    }


def window_fields(batch=16, batches=4):
    """Batches of windows of five frames."""
    return {"batch": batch, "batches": batches}


def _networks(what, peer, tasks, made, fields, count, unit):
    """A row for the forward pass of a network, and one for its training step."""
    return [
        Row(
            f"{what}, {how}",
            peer,
            f"{tasks}_{how}",
            functools.partial(function, made),
            fields,
            unit,
            count,
        )
        for how, function in (("forward", ours.forward), ("step", ours.step))
    ]


def _windows(what, task):
    fields = window_fields()
    count = fields["batch"] * fields["batches"]
    return Row(what, "wav2lip", task, ours.windows, window_fields, "example", count, media=True)


def _chain(what, size, count):
    fields = functools.partial(chain_fields, size, count)
    return Row(what, "wav2lip", "chain", ours.chain, fields, "frame", count)


ROWS = [
    *_networks("VQGAN", "taming", "vqgan", ours.vqgan, vqgan_fields, PICTURES, "image"),
    *_networks("lip UNet", "latent-diffusion", "unet", ours.unet, unet_fields, LIPS, "frame"),
    *_networks("lip UNet", "latentsync", "latentsync", ours.unet, unet_fields, LIPS, "frame"),
    _windows("windows of codes / of JPEGs", "jpg_windows"),
    _windows("windows of codes / of mp4", "mp4_windows"),
    _chain(f"clip, small ({common.IMAGE_SIZE['small']} px) / RGB chain", "small", 4),
    _chain(f"clip, paper ({common.IMAGE_SIZE['paper']} px) / RGB chain", "paper", 1),
]
CODES = common.IMAGE_SIZE["paper"]  # px of the pictures whose codes are loaded
MEDIA = functools.partial(media.write, codes_size=CODES)

"""What is compared with whom, in which shapes: the paper's, for clips `small` and `live` too."""

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
PIXELS = 128  # a side of the VQGAN's pictures
BATCH = 4  # pictures or frames of a network's turn


@dataclasses.dataclass(frozen=True)
class Row:
    """One comparison.

    name: what is done. peer: a name of PEERS. task: of theirs/main.py. ours: fields -> (settle,
    work, facts), of ours.py. fields: count -> shapes for both sides. unit: what is counted; count:
    how many of them a turn makes. media: whether fields get the folders `records` and `media`.
    """

    name: str
    peer: str
    task: str
    ours: Callable
    fields: Callable
    unit: str
    count: int
    media: bool = False


def vqgan_fields(count):
    """Shapes of the paper's VQGAN."""
    model = vqgan.model("paper")["vqgan"]
    return {"model": model, "size": PIXELS, "count": count}


def unet_fields(count):
    """Shapes of the paper's lip UNet: lower halves of a picture of 512 px."""
    config = sync.get_config("paper")
    h, w = swap.model("paper")["swap"]["grid"]
    return {
        "model": sync.model("paper")["unet"],
        "grid": (h // 2, w),
        "tokens": 2 * config.data.context,
        "audio_width": HUBERT,
        "count": count,
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


def window_fields(count):
    """Batches of 16 windows of five frames."""
    return {"batch": 16, "batches": count // 16}


def _networks(what, peer, tasks, made, fields, unit):
    """A row for the forward pass of a network, and one for its training step."""
    return [
        Row(
            f"{what}, {how}",
            peer,
            f"{tasks}_{how}",
            functools.partial(function, made),
            fields,
            unit,
            BATCH,
        )
        for how, function in (("forward", ours.forward), ("step", ours.step))
    ]


def _windows(what, task):
    return Row(what, "wav2lip", task, ours.windows, window_fields, "example", 64, media=True)


def _chain(what, size, count):
    fields = functools.partial(chain_fields, size)
    return Row(what, "wav2lip", "chain", ours.chain, fields, "frame", count)


ROWS = [
    *_networks("VQGAN", "taming", "vqgan", ours.vqgan, vqgan_fields, "image"),
    *_networks("lip UNet", "latent-diffusion", "unet", ours.unet, unet_fields, "frame"),
    *_networks("lip UNet", "latentsync", "latentsync", ours.unet, unet_fields, "frame"),
    _windows("windows of codes / of JPEGs", "jpg_windows"),
    _windows("windows of codes / of mp4", "mp4_windows"),
    _chain(f"clip, small ({common.IMAGE_SIZE['small']} px) / RGB chain", "small", BATCH),
    _chain(f"clip, live ({common.IMAGE_SIZE['live']} px) / RGB chain", "live", BATCH),
    _chain(f"clip, paper ({common.IMAGE_SIZE['paper']} px) / RGB chain", "paper", 1),
]
CODES = common.IMAGE_SIZE["paper"]  # px of the pictures whose codes are loaded
MEDIA = functools.partial(media.write, codes_size=CODES)

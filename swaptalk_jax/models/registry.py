"""Networks by the names that configs use. A new backbone is one line here."""

import dataclasses

import jax.numpy as jnp

from swaptalk_jax import errors
from swaptalk_jax.models.discriminator import PatchDiscriminator
from swaptalk_jax.models.expert import LipExpert
from swaptalk_jax.models.lip_unet import LipUNet
from swaptalk_jax.models.public.iresnet import IResNet
from swaptalk_jax.models.public.mobile_faces import MobileFaceNet, SFace
from swaptalk_jax.models.public.vgg import VGG16Features
from swaptalk_jax.models.recogniser import Recogniser
from swaptalk_jax.models.swap import SwapTransformer
from swaptalk_jax.models.vqgan import VQGAN
from swaptalk_jax.models.warp import FaceWarp

# Slot -> the networks that may stand there; the first is the default.
MODELS = {
    "vqgan": [VQGAN],
    "discriminator": [PatchDiscriminator],
    "recogniser": [Recogniser, SFace, MobileFaceNet, IResNet],
    "perceptual": [VGG16Features],
    "expert": [LipExpert],
    "swap": [SwapTransformer],
    "warp": [FaceWarp],
    "unet": [LipUNet],
}

# What Flax adds to every network, and what belongs to the run that uses it.
NOT_CONFIGURED = {"parent", "name", "dtype", "remat"}


def build(slot, fields, network=None, remat=False, dtype=jnp.float32):
    """The network of a slot from the fields of a config's section.

    fields: of the network's class; `network` among them is its name, where it is not the slot's
    first. network: the name where it stands beside the fields, as in an imported network's
    config.json. remat: what it computes again on the way back, if it can; see blocks.remat.

    Raises CheckpointError, in one line: a slot without networks, a name that no network of the slot
    has, a field that the network lacks.
    """
    fields = dict(fields)
    model = named(slot, fields.pop("network", None) or network)
    has = {field.name for field in dataclasses.fields(model)}
    strange = sorted(set(fields) - (has - NOT_CONFIGURED))
    if strange:
        raise errors.CheckpointError(
            f"model.{slot}: {model.__name__} has no {', '.join(strange)}; its fields are: "
            + ", ".join(sorted(has - NOT_CONFIGURED))
        )
    return model(**fields, **({"remat": remat} if "remat" in has else {}), dtype=dtype)


def named(slot, network=None):
    """The class of a slot's network by its name; None: the slot's first. Raises as `build`."""
    if slot not in MODELS:
        raise errors.CheckpointError(
            f"model.{slot}: there is no such network; known are: {', '.join(MODELS)}"
        )
    for model in MODELS[slot]:
        if network in (None, model.__name__):
            return model
    raise errors.CheckpointError(
        f"model.{slot} names {network!r}, which is no {slot} here; known: "
        + ", ".join(model.__name__ for model in MODELS[slot])
    )


def remat_of(config):
    """The `remat` of `build` by config.remat and config.remat_all."""
    return "all" if config.remat and config.get("remat_all", False) else config.remat

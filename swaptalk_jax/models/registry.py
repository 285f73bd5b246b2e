"""Networks by the names that configs use."""

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

# Slot -> the networks that may stand there; the first is the one that our own stages train.
MODELS = {
    "vqgan": (VQGAN,),
    "discriminator": (PatchDiscriminator,),
    "recogniser": (Recogniser, SFace, MobileFaceNet, IResNet),
    "perceptual": (VGG16Features,),
    "expert": (LipExpert,),
    "swap": (SwapTransformer,),
    "warp": (FaceWarp,),
    "unet": (LipUNet,),
}


def build(slot, fields, network=None, remat=False, dtype=jnp.float32):
    """The network of a slot from its numbers; `network` is its class by name, None: our own.

    remat: whether it computes blocks again on the way back, if it can; a matter of the run that
    uses the network, not of the network.

    Raises CheckpointError where no network of this name fits the slot.
    """
    for model in MODELS[slot]:
        if network in (None, model.__name__):
            able = {field.name for field in dataclasses.fields(model)} & {"remat"}
            return model(**{**fields, **dict.fromkeys(able, remat)}, dtype=dtype)
    raise errors.CheckpointError(
        f"a config.json names {network!r}, which is no {slot} here; known: "
        + ", ".join(model.__name__ for model in MODELS[slot])
    )

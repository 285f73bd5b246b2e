"""Networks that a stage reads and never trains, by the folder of the run that trained them."""

import dataclasses

import jax.numpy as jnp

from swaptalk_jax import checkpoints
from swaptalk_jax.models.discriminator import PatchDiscriminator
from swaptalk_jax.models.expert import LipExpert
from swaptalk_jax.models.iresnet import IResNet
from swaptalk_jax.models.lip_unet import LipUNet
from swaptalk_jax.models.mobile_faces import MobileFaceNet, SFace
from swaptalk_jax.models.recogniser import Recogniser
from swaptalk_jax.models.swap import SwapTransformer
from swaptalk_jax.models.vgg import VGG16Features
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
    raise checkpoints.CheckpointError(
        f"a config.json names {network!r}, which is no {slot} here; known: "
        + ", ".join(model.__name__ for model in MODELS[slot])
    )


class Network:
    """A finished network: `apply(params, ...)` runs it, `params()` reads its parameters.

    folder: workdir of a finished run, a bundle's part or a pretrained network's folder; name: the
    slot, which is the key in its config.model and its parameters. The network's class and numbers
    come from that folder's config, never from this run's.
    """

    def __init__(self, folder, name, dtype, remat=False):
        self.folder, self.name = folder, name
        self.config = checkpoints.load_config(folder)
        if name not in self.config["model"]:
            raise checkpoints.CheckpointError(f"{folder}: holds no {name}")
        network = self.config.get("network")
        self.model = build(name, self.config["model"][name], network, remat, dtype)

    def params(self):
        """Nested dict of NumPy arrays."""
        return checkpoints.load_network(self.folder)[0][self.name]

    def empty(self, codes):
        """Zeros of the shape of the VQ-embeddings of codes [... h w], to initialise networks."""
        return jnp.zeros((*codes.shape, self.model.embed_dim))

    def apply(self, params, *args, **kwargs):
        """The model's apply on its own parameters."""
        return self.model.apply({"params": params}, *args, **kwargs)

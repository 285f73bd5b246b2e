"""Shift-tolerant LPIPS (Ghildyal & Liu 2022): VGG16 with blurred pooling and heads of its own."""

import numpy as np

from swaptalk_jax.errors import CheckpointError
from swaptalk_jax.pretrained import PublicNetwork, PublicPackage, vgg16
from swaptalk_jax.pretrained.formats.torch_file import read_tensors


def read(path):
    """vgg_shift_tolerant.pth -> (parameters, fields) of models.vgg.VGG16Features."""
    tensors = read_tensors(path)
    params, widths = vgg16.trunk(tensors, path)
    blurs = [name for name in tensors if name.endswith(".filt")]
    binomial = np.outer([1, 2, 1], [1, 2, 1]) / 16
    if len(blurs) != len(widths) - 1 or any(
        tensors[name].shape[2:] != (3, 3) or not np.allclose(tensors[name], binomial)
        for name in blurs
    ):
        raise CheckpointError(f"{path}: its blurs aren't (1, 2, 1)/4; is this vgg_shift_tolerant?")
    return (
        params | vgg16.heads(tensors, widths, path),
        {"widths": widths, "heads": True, "shift_tolerant": True},
    )


FILE = "stlpips_pytorch/weights/vST0.0/vgg_shift_tolerant.pth"
NETWORKS = (
    PublicNetwork(
        name="stlpips",
        slot="perceptual",
        module="VGG16Features",
        title="Shift-tolerant LPIPS on VGG16: a trained perceptual distance",
        licence="BSD-2-Clause",
        megabytes=59,
        package=PublicPackage(
            registry="pypi",
            name="stlpips-pytorch",
            version="0.0.2",
            file=FILE,
            sha256="44597da68f49c1837c100ff52299050f274d102eb102e5837178c79be6f0e250",
        ),
        original=f"{FILE} of PyPI's stlpips-pytorch 0.0.2",
        read=read,
    ),
)

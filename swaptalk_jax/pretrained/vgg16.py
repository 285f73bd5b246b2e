"""VGG16 behind the perceptual loss: torchvision's, and the same with LPIPS's heads."""

import re

import numpy as np

from swaptalk_jax.errors import CheckpointError
from swaptalk_jax.models.public.vgg import STAGES
from swaptalk_jax.pretrained import PublicNetwork
from swaptalk_jax.pretrained.formats.torch_file import read_tensors

ADDRESS = "https://download.pytorch.org/models/vgg16-397923af.pth (528 MB, torchvision)"
HEADS = "vgg.pth"  # lpips/weights/v0.1/vgg.pth of the package `lpips` 0.1.4, 7 KB


def read(path):
    """torchvision's vgg16 (.pth or safetensors) -> (parameters, fields) of models.vgg."""
    params, widths = trunk(read_tensors(path), path)
    return params, {"widths": widths}


def read_lpips(path):
    """VGG16 with LPIPS's heads -> (parameters, fields).

    path: torchvision's file with the heads beside it as vgg.pth, or one file with both, saved from
    lpips.LPIPS(net="vgg").
    """
    tensors = read_tensors(path)
    params, widths = trunk(tensors, path)
    if "lin0.model.1.weight" not in tensors:
        beside = path.parent / HEADS
        if not beside.exists():
            raise CheckpointError(
                f"{path}: no LPIPS heads in it, and no {beside}; get lpips/weights/v0.1/vgg.pth "
                "from the package lpips 0.1.4 and put it there"
            )
        tensors, path = read_tensors(beside), beside
    return params | heads(tensors, widths, path), {"widths": widths, "heads": True}


def trunk(tensors, path):
    """({features_N: {kernel, bias}}, widths): the 13 convolutions in the order of their numbers.

    Their names are features.N in torchvision, net.sliceK.N in LPIPS and its relatives.
    """
    prefixes = {}
    for name in tensors:
        match = re.fullmatch(r"(features|net\.slice\d)\.(\d+)\.weight", name)
        if match:
            prefixes[int(match[2])] = name.removesuffix("weight")
    numbers = [number for stage in STAGES for number in stage]
    if len(prefixes) != len(numbers):
        raise CheckpointError(
            f"{path}: {len(prefixes)} convolutions where VGG16 has {len(numbers)}; is this VGG16?"
        )
    params, before, widths = {}, 3, []
    for number, (_, name) in zip(numbers, sorted(prefixes.items()), strict=True):
        kernel, bias = tensors[f"{name}weight"], tensors.get(f"{name}bias")
        width = kernel.shape[0] if number in [n for n, *_ in STAGES] else widths[-1]
        if kernel.shape != (width, before, 3, 3) or bias is None or bias.shape != (width,):
            raise CheckpointError(f"{path}: {name}weight is {kernel.shape}; is this VGG16?")
        widths += [width] if number in [n for n, *_ in STAGES] else []
        before = width
        params[f"features_{number}"] = {
            "kernel": np.float32(kernel.transpose(2, 3, 1, 0)),
            "bias": np.float32(bias),
        }
    return params, tuple(widths)


def heads(tensors, widths, path):
    """{lin0..lin4: [widths[i]]}: LPIPS's weights of squared differences."""
    params = {}
    for i, width in enumerate(widths):
        weight = tensors.get(f"lin{i}.model.1.weight")
        if weight is None or weight.shape != (1, width, 1, 1):
            raise CheckpointError(f"{path}: no lin{i} of {width} weights; are these LPIPS heads?")
        params[f"lin{i}"] = np.float32(weight.reshape(width))
    return params


NETWORKS = (
    PublicNetwork(
        name="vgg16",
        slot="perceptual",
        module="VGG16Features",
        title="VGG16 trained on ImageNet (torchvision): the paper's perceptual loss",
        licence="BSD-3-Clause (torchvision); ImageNet's terms are for research",
        megabytes=528,
        package=None,
        original=ADDRESS,
        read=read,
    ),
    PublicNetwork(
        name="lpips",
        slot="perceptual",
        module="VGG16Features",
        title="VGG16 with the heads of LPIPS 0.1 (Zhang et al. 2018)",
        licence="BSD-3-Clause (torchvision), BSD-2-Clause (LPIPS); ImageNet's terms: research",
        megabytes=528,
        package=None,
        original=f"{ADDRESS}; beside it {HEADS}, lpips/weights/v0.1/vgg.pth of PyPI's lpips 0.1.4",
        read=read_lpips,
    ),
)

"""dlib's file of its face recogniser: dlib_face_recognition_resnet_model_v1.dat.

A file of dlib holds a network's layers one after the other, here from the image on. Each names its
kind and then holds its parameters as one tensor. An integer is a byte that counts its bytes, and
these, the lowest one first; a tensor is the version 2, four sizes and its float32 values.
"""

import math
import os
import re

import numpy as np

from swaptalk_jax.models.public.dlib_resnet import UNITS
from swaptalk_jax.pretrained.formats import bounds

LARGEST = 256 << 20  # bytes; the file has 22 MB
# The kinds of layers with parameters, each behind the integer that counts its letters; the last one
# tells its 128 outputs and 256 inputs first.
KINDS = re.compile(rb"\x01\x05con_4|\x01\x07affine_|\x01\x04fc_2\x01\x80\x02\x00\x01")

# A convolution and its affine layer: the first, and two in each unit. Then the embedding.
TENSORS = 2 * (1 + 2 * sum(units for _, units in UNITS)) + 1


def read(path: str | os.PathLike) -> dict:
    """Parameters of models.public.dlib_resnet.DlibResNet, float32.

    Raises CheckpointError, one line: the file cannot be read, or holds another network.
    """
    with bounds.reading(path, "file of dlib's face recogniser", LARGEST) as file:
        data = file.read()
        tensors = [_tensor(data, found.end()) for found in KINDS.finditer(data)]
        if len(tensors) != TENSORS:
            raise ValueError(f"it holds {len(tensors)} layers with weights, not {TENSORS}")
        return _params(iter(tensors))


def _params(tensors):
    """Nested dict of TENSORS tensors in the order of the layers; ValueError: of other shapes."""
    params = {"stem": _conv(tensors, 3, UNITS[0][0], 7)}
    before = UNITS[0][0]
    for level, (width, units) in enumerate(UNITS):
        for unit in range(units):
            params[f"level{level}_unit{unit}"] = {
                "conv1": _conv(tensors, before, width, 3),
                "conv2": _conv(tensors, width, width, 3),
            }
            before = width
    params["embedding"] = {"kernel": next(tensors).reshape(before, -1)}
    return params


def _conv(tensors, channels, width, size):
    """Kernel [size size channels width] and bias [width] of a convolution and its affine layer."""
    values, (scale, shift) = next(tensors), next(tensors).reshape(2, width)
    kernel, bias = values[:-width].reshape(width, channels, size, size), values[-width:]
    return {"kernel": kernel.transpose(2, 3, 1, 0) * scale, "bias": bias * scale + shift}


def _tensor(data, place):
    """The values float32 [n] of the tensor that begins at a place in the file."""
    sizes = []
    for _ in range(5):
        count = data[place]
        sizes.append(int.from_bytes(data[place + 1 : place + 1 + count], "little"))
        place += 1 + count
    if sizes[0] != 2:
        raise ValueError(f"a tensor of the version {sizes[0]}")
    return np.frombuffer(data, "<f4", math.prod(sizes[1:]), place)

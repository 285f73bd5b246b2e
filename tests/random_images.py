"""Seeded weights under the names of public files, for parity with other implementations."""

import numpy as np

VGG_LAYOUT = (2, 2, 3, 3, 3)  # convolutions a stage
# Reduced widths: the golden files hold what torch gives for these.
WIDTHS = (4, 8, 8, 12, 12)
TAMING = dict(width=128, multipliers=(1, 2), blocks=1, z=12, embed=16, codes=32)


def _conv(rng, weights, name, out, wide, side=3):
    scale = np.sqrt(2 / (wide * side * side))
    weights[f"{name}.weight"] = rng.normal(0, scale, (out, wide, side, side)).astype(np.float32)
    weights[f"{name}.bias"] = rng.normal(0, 0.1, out).astype(np.float32)


def _norm(rng, weights, name, width):
    weights[f"{name}.weight"] = (1 + rng.normal(0, 0.1, width)).astype(np.float32)
    weights[f"{name}.bias"] = rng.normal(0, 0.1, width).astype(np.float32)


def image(seed, *shape):
    """float32 in [-1, 1]."""
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


def vgg(seed, widths=WIDTHS, blur=False, heads=False):
    """torchvision's names; with heads those of the package lpips; with blur of stlpips."""
    rng, weights, number, before = np.random.default_rng(seed), {}, 0, 3
    for stage, (count, width) in enumerate(zip(VGG_LAYOUT, widths, strict=True)):
        prefix = f"net.slice{stage + 1}" if heads else "features"
        if stage > 0 and blur:
            binomial = np.outer([1, 2, 1], [1, 2, 1]).astype(np.float32) / 16
            weights[f"{prefix}.{number + 1}.filt"] = np.tile(binomial, (before, 1, 1, 1))
        number += (2 if blur else 1) if stage > 0 else 0
        for _ in range(count):
            _conv(rng, weights, f"{prefix}.{number}", width, before)
            number, before = number + 2, width
    if heads:
        for i, width in enumerate(widths):
            head = rng.uniform(0, 1, (1, width, 1, 1)).astype(np.float32)
            weights[f"lin{i}.model.1.weight"] = head
    return weights


def taming(seed, width, multipliers, blocks, z, embed, codes):
    """A VQGAN of taming-transformers with attention at its last level."""
    rng, weights = np.random.default_rng(seed), {}
    channels = [width * multiplier for multiplier in multipliers]

    def block(name, wide, out):
        _norm(rng, weights, f"{name}.norm1", wide)
        _conv(rng, weights, f"{name}.conv1", out, wide)
        _norm(rng, weights, f"{name}.norm2", out)
        _conv(rng, weights, f"{name}.conv2", out, out)
        if wide != out:
            _conv(rng, weights, f"{name}.nin_shortcut", out, wide, side=1)

    def attention(name, wide):
        _norm(rng, weights, f"{name}.norm", wide)
        for part in ("q", "k", "v", "proj_out"):
            _conv(rng, weights, f"{name}.{part}", wide, wide, side=1)

    def middle(name):
        block(f"{name}.block_1", channels[-1], channels[-1])
        attention(f"{name}.attn_1", channels[-1])
        block(f"{name}.block_2", channels[-1], channels[-1])

    last = len(channels) - 1
    _conv(rng, weights, "encoder.conv_in", width, 3)
    wide = width
    for level, out in enumerate(channels):
        for i in range(blocks):
            block(f"encoder.down.{level}.block.{i}", wide, out)
            wide = out
            if level == last:
                attention(f"encoder.down.{level}.attn.{i}", out)
        if level < last:
            _conv(rng, weights, f"encoder.down.{level}.downsample.conv", out, out)
    middle("encoder.mid")
    _norm(rng, weights, "encoder.norm_out", wide)
    _conv(rng, weights, "encoder.conv_out", z, wide)
    _conv(rng, weights, "quant_conv", embed, z, side=1)
    _conv(rng, weights, "post_quant_conv", z, embed, side=1)
    weights["quantize.embedding.weight"] = rng.normal(0, 1, (codes, embed)).astype(np.float32)
    _conv(rng, weights, "decoder.conv_in", wide, z)
    middle("decoder.mid")
    for level, out in reversed(list(enumerate(channels))):
        for i in range(blocks + 1):
            block(f"decoder.up.{level}.block.{i}", wide, out)
            wide = out
            if level == last:
                attention(f"decoder.up.{level}.attn.{i}", out)
        if level > 0:
            _conv(rng, weights, f"decoder.up.{level}.upsample.conv", out, out)
    _norm(rng, weights, "decoder.norm_out", wide)
    _conv(rng, weights, "decoder.conv_out", 3, wide)
    return weights

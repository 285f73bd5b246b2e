"""Perceptual networks, VQGAN and the reader of torch files against torch and diffusers.

    pip install -e '.[parity]'
    python -m tests.parity.images            compares, at the reduced and at the true sizes
    python -m tests.parity.images --write    and writes tests/golden/images.npz

Relative errors are max|a - b| / max|b| in float32.
"""

import collections
import sys
import tempfile
from pathlib import Path

import jax
import numpy as np
import torch
import torch.nn.functional as F
from diffusers import VQModel
from safetensors.numpy import save_file

from swaptalk_jax.errors import CheckpointError
from swaptalk_jax.models.public.vgg import VGG16Features
from swaptalk_jax.models.vqgan import VQGAN
from swaptalk_jax.pretrained import stlpips, taming, vgg16
from swaptalk_jax.pretrained.formats.torch_file import read_tensors
from tests import random_images

GOLDEN = Path(__file__).parent.parent / "golden" / "images.npz"
VGG = {
    "vgg16": (vgg16.read, {}),
    "lpips": (vgg16.read_lpips, {"heads": True}),
    "stlpips": (stlpips.read, {"heads": True, "blur": True}),
}
PAPER = dict(width=128, multipliers=(1, 1, 2, 2, 4), blocks=2, z=256, embed=256, codes=1024)


def error(ours, theirs):
    """Relative error; fails where it is above 1e-4."""
    value = float(np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max())
    assert value <= 1e-4, value
    return value


def channels_first(x):
    """NumPy [b h w c] -> torch [b c h w]."""
    return torch.from_numpy(np.ascontiguousarray(x)).permute(0, 3, 1, 2)


def channels_last(x):
    """torch [b c h w] -> NumPy [b h w c]."""
    return x.detach().permute(0, 2, 3, 1).numpy()


def torch_vgg(weights, image, blur):
    """The five maps of a [b 3 h w] image in [-1, 1]."""
    x = (image + 1) / 2
    x = (x - torch.tensor([0.485, 0.456, 0.406])[:, None, None]) / torch.tensor(
        [0.229, 0.224, 0.225]
    )[:, None, None]
    names = iter(k.removesuffix(".weight") for k in weights if k[:3] in ("net", "fea") and "w" in k)
    filters = iter(torch.from_numpy(x) for k, x in weights.items() if k.endswith("filt"))
    maps = []
    for stage, count in enumerate(random_images.VGG_LAYOUT):
        if stage and blur:
            x = F.pad(F.max_pool2d(x, 2, 1), (2, 2, 2, 2), mode="reflect")
            x = F.conv2d(x, next(filters), stride=2, groups=x.shape[1])
        elif stage:
            x = F.max_pool2d(x, 2, 2)
        for _ in range(count):
            name = next(names)
            kernel, bias = (torch.from_numpy(weights[f"{name}.{k}"]) for k in ("weight", "bias"))
            x = F.relu(F.conv2d(x, kernel, bias, padding=1))
        maps.append(x)
    return maps


def torch_distance(weights, maps, maps_of_result):
    """LPIPS where there are heads, else the sum of mean absolute differences -> [b]."""
    total = 0
    for i, (a, b) in enumerate(zip(maps, maps_of_result, strict=True)):
        if f"lin{i}.model.1.weight" in weights:
            a, b = (x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10) for x in (a, b))
            head = torch.from_numpy(weights[f"lin{i}.model.1.weight"])
            total = total + F.conv2d((a - b).square(), head).mean((1, 2, 3))
        else:
            total = total + (a - b).abs().mean((1, 2, 3))
    return total


def perceptual(name, folder, widths, side):
    """Compares one network; returns torch's maps and distance."""
    read, options = VGG[name]
    weights = random_images.vgg(1, widths, **options)
    save_file(weights, folder / "x.safetensors")
    params, fields = read(folder / "x.safetensors")
    net = VGG16Features(**fields)
    image, result = (random_images.image(seed, 2, side, side + 4, 3) for seed in (2, 3))
    result = 0.7 * image + 0.3 * result
    tensors = [channels_first(x).requires_grad_() for x in (image, result)]
    maps = [torch_vgg(weights, x, "blur" in options) for x in tensors]
    theirs = torch_distance(weights, *maps)
    gradient = torch.autograd.grad(theirs.sum(), tensors[1])[0]

    def distance(result):
        return net.apply({"params": params}, image, result, method="distance")

    ours = net.apply({"params": params}, image)
    errors = [error(a, channels_last(b)) for a, b in zip(ours, maps[0], strict=True)]
    at_distance = error(distance(result), theirs.detach().numpy())
    print(f"{name} {widths}: maps {max(errors):.1e}, distance {at_distance:.1e}", end=", ")
    # At the true size some inputs of ReLU and | | lie so near their kink that rounding decides:
    # torch's own float32 and float64 differ in vgg16's gradient by 1.2e-2 of its norm.
    our_gradient = np.asarray(jax.grad(lambda x: distance(x).sum())(result))
    difference = np.linalg.norm(our_gradient - channels_last(gradient))
    at_gradient = difference / np.linalg.norm(channels_last(gradient))
    print(f"gradient {at_gradient:.1e} (of its norm)")
    assert at_gradient < (1e-4 if widths == random_images.WIDTHS else 5e-2)
    golden = {f"{name}/map{i}": channels_last(x[:1]) for i, x in enumerate(maps[0])}
    if name == "lpips":
        golden = {}  # vgg16's maps
    return golden | {f"{name}/distance": theirs.detach().numpy()}


def diffusers_vqgan(weights, width, multipliers, blocks, z, embed, codes):
    """diffusers' VQModel with a taming checkpoint's weights."""
    count = len(multipliers)
    plain, deepest = count - 1, 1
    model = VQModel(
        down_block_types=("DownEncoderBlock2D",) * plain + ("AttnDownEncoderBlock2D",) * deepest,
        up_block_types=("AttnUpDecoderBlock2D",) * deepest + ("UpDecoderBlock2D",) * plain,
        block_out_channels=tuple(width * multiplier for multiplier in multipliers),
        layers_per_block=blocks,
        latent_channels=z,
        vq_embed_dim=embed,
        num_vq_embeddings=codes,
        norm_num_groups=32,
    )
    renamed = {}
    for name, x in weights.items():
        parts = name.split(".")
        if parts[1] in ("down", "up"):
            level = int(parts[2])
            kind = {"block": "resnets", "attn": "attentions"}.get(parts[3])
            where = f"down_blocks.{level}" if parts[1] == "down" else f"up_blocks.{plain - level}"
            if kind:
                parts[1:5] = [where, kind, parts[4]]
            else:
                parts[1:4] = [where, f"{parts[3]}rs", "0"]
        elif parts[1] == "mid":
            kind, number = parts[2].split("_")
            kind = {"block": "resnets", "attn": "attentions"}[kind]
            parts[1:3] = ["mid_block", kind, str(int(number) - 1)]
        parts = ["conv_norm_out" if part == "norm_out" else part for part in parts]
        parts = ["conv_shortcut" if part == "nin_shortcut" else part for part in parts]
        if "attentions" in parts:
            layer = {"q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}
            parts[-2] = layer.get(parts[-2], "group_norm")
            x = x[:, :, 0, 0] if x.ndim == 4 else x
        renamed[".".join(parts)] = torch.from_numpy(np.ascontiguousarray(x))
    model.load_state_dict(renamed)
    return model.eval()


def vqgan(folder, side, numbers):
    """Compares encoder (each half), codes and decoder; returns what diffusers gives."""
    weights = random_images.taming(4, **numbers)
    save_file(weights, folder / "x.safetensors")
    params, fields = taming.read(folder / "x.safetensors")
    ours, theirs = VQGAN(**fields), diffusers_vqgan(weights, **numbers)
    image = random_images.image(5, 1, 2 * side, side, 3)
    book = weights["quantize.embedding.weight"]
    with torch.no_grad():
        halves = [theirs.encode(channels_first(x)).latents for x in np.split(image, 2, axis=1)]
        z = np.concatenate([channels_last(x) for x in halves], axis=1)
        codes = [np.asarray(theirs.quantize(x)[2][2]).reshape(-1, *x.shape[2:]) for x in halves]
        codes = np.concatenate(codes, axis=1)
        quantised = channels_first(book[codes])
        picture = channels_last(theirs.decoder(theirs.post_quant_conv(quantised)))
    variables = {"params": params}
    our_z = ours.apply(variables, image, method="encode")
    shift = params["codebook_upper"][0] - book[0]
    at_z = error(our_z - shift, z)
    same = float(np.mean(ours.apply(variables, our_z, method="nearest") == codes))
    decoded = ours.apply(variables, ours.apply(variables, codes, method="lookup"), method="decode")
    at_picture = error(decoded, picture)
    print(f"vqgan {numbers}: z {at_z:.1e}, codes equal {same:.3f}, decoder {at_picture:.1e}")
    return {"vqgan/z": z, "vqgan/codes": codes.astype(np.int32), "vqgan/picture": picture}


def leaves(tree, path=()):
    """(name, tensor) of what torch saved, named as the reader names it."""
    if isinstance(tree, torch.Tensor):
        yield "/".join(path), tree.detach()
    elif isinstance(tree, dict | list | tuple) and not isinstance(tree, torch.Size):
        for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from leaves(value, (*path, str(key)))


class Callback:
    """Something of a trainer's that a checkpoint drags along; its name is on no list of ours."""


def torch_files(folder):
    """Compares the reader with what was given to torch.save, in both formats."""
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    optimizer = torch.optim.Adam(module.parameters())
    module(torch.randn(2, 3, 8, 8)).sum().backward()
    optimizer.step()
    base, tagged = torch.randn(6, 8), torch.randn(3)
    tagged.note = "an attribute"
    kinds = "float64 float32 float16 bfloat16 int64 int32 int16 int8 uint8 bool complex64".split()
    tree = {
        "state_dict": module.state_dict(),
        "optimizer": optimizer.state_dict(),
        "kinds": {kind: torch.arange(6).view(3, 2).to(getattr(torch, kind)) for kind in kinds},
        "shared": (base, base.t(), base[1:4, ::3], base[2]),
        "expanded": torch.arange(4).expand(3, 4),
        "scalar": torch.tensor(3.5),
        "empty": torch.zeros(0, 4),
        "parameter": [torch.nn.Parameter(torch.ones(2)), tagged],
        "others": collections.defaultdict(dict, {"x": torch.ones(1)}),
        "module": module,
        "scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 1),
        "device": torch.device("cpu"),
        "size": torch.Size([2]),
        "epoch": 10**30,
    }
    for new in (True, False):
        for protocol in (2, 4, 5):
            kinds = (torch.uint16, torch.uint32, torch.uint64) if new else ()
            saved = tree | {"unsigned": [torch.tensor([1, 60000]).to(kind) for kind in kinds]}
            options = {"_use_new_zipfile_serialization": new, "pickle_protocol": protocol}
            torch.save(saved, folder / "x.pth", **options)
            found, true = read_tensors(folder / "x.pth"), dict(leaves(saved))
            assert list(found) == list(true)
            for name, x in true.items():
                x = (x.float() if x.dtype == torch.bfloat16 else x).numpy()
                assert x.dtype == found[name].dtype, name
                np.testing.assert_array_equal(found[name], x, name)
            torch.save(saved | {"callback": Callback()}, folder / "x.pth", **options)
            try:
                read_tensors(folder / "x.pth")
                raise AssertionError("a callback was read")
            except CheckpointError as error:
                assert "Callback, which no tensor needs" in str(error), error
            print(f"torch.save, {'zip' if new else 'legacy'}, {protocol}: {len(found)} equal")


def main():
    """Everything."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    golden = {}
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        torch_files(folder)
        for name in VGG:
            golden |= perceptual(name, folder, random_images.WIDTHS, 24)
            perceptual(name, folder, (64, 128, 256, 512, 512), 64)
        golden |= vqgan(folder, 16, random_images.TAMING)
        vqgan(folder, 128, PAPER)
    if "--write" in sys.argv:
        np.savez_compressed(GOLDEN, **golden)
        print(f"{GOLDEN}: {GOLDEN.stat().st_size} bytes")


if __name__ == "__main__":
    main()

"""Tensors of a torch file (.pth .pt .ckpt .bin) or of a safetensors file, as NumPy arrays.

Nothing that a file holds is run: see torch_pickle.py. The file is never larger in memory than on
disk by more than a few times: see bounds.py.
"""

import io
import json
import math
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np

from swaptalk_jax.errors import CheckpointError
from swaptalk_jax.pretrained.formats import bounds
from swaptalk_jax.pretrained.formats.torch_pickle import Tensor, read_pickle

SAFETENSORS = {
    "BF16": ml_dtypes.bfloat16,
    "BOOL": np.bool_,
    "C64": np.complex64,
    **{f"{kind}{8 * n}": f"<{kind.lower()}{n}" for kind in "IUF" for n in (2, 4, 8)},
    "I8": np.int8,
    "U8": np.uint8,
}
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # first pickle of what torch.save wrote before 1.6
# A pickle of n bytes can name 2^n things, one inside the other. No checkpoint has this many.
NODES, DEPTH = 1_000_000, 32


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """All dense tensors of a file, by name; its format is told by its content, not by its name.

    Names of nested containers are joined by "/" ("state_dict/encoder.conv_in.weight"; items of
    lists by their index). Arrays have the file's dtype, but bfloat16 comes as float32 (exact), and
    its strides; they may be read-only and share memory, as in the file. What is no dense tensor
    (numbers, strings, callbacks of a trainer, sparse or quantised tensors) is left out.

    Formats: torch.save's zip, what it wrote before torch 1.6 (torchvision's VGG16, LPIPS), and
    safetensors. Raises CheckpointError where the file is missing, damaged, of another format or
    holds no tensor.
    """
    with bounds.reading(path, "torch or safetensors file") as file:
        tensors = _read(file)
        if not tensors:
            raise CheckpointError(
                "holds no tensors; modules pickled whole aren't read, save a module's state_dict()"
            )
        return tensors


def _read(file):
    start = file.read(9)
    file.seek(0)
    if start.startswith(b"PK"):
        return _read_zip(file)
    if start[8:] == b"{":
        return _read_safetensors(file)
    if start.startswith(b"\x80"):
        return _read_legacy(file)
    raise CheckpointError("neither a file of torch.save nor safetensors")


def _read_zip(file):
    """torch.save's zip: <root>/data.pkl, and an entry <root>/data/<key> for each storage."""
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        pickles = [name for name in names if name.split("/")[1:] == ["data.pkl"]]
        if len(pickles) != 1:
            raise CheckpointError("a zip, but not one of torch.save: no data.pkl in its folder")
        # torch compresses nothing, so that no entry can be larger than the file.
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise CheckpointError("a compressed zip, which torch.save never writes")
        root = pickles[0].removesuffix("data.pkl")
        if f"{root}byteorder" in names and archive.read(f"{root}byteorder") != b"little":
            raise CheckpointError("from a big-endian machine; save it as safetensors there")
        tree, _ = read_pickle(io.BytesIO(archive.read(pickles[0])))
        return _tensors(
            tree, lambda storage: archive.read(f"{root}data/{storage.key}"), bounds.size(file)
        )


def _read_legacy(file):
    """The older format: five pickles (the fourth is the content), then each storage's values."""
    content = file.read()
    file = io.BytesIO(content)
    magic, _ = read_pickle(file)
    if magic != LEGACY_MAGIC:
        raise CheckpointError("a pickle, but not one of torch.save")
    read_pickle(file)  # version of the protocol
    machine, _ = read_pickle(file)
    if not machine["little_endian"]:
        raise CheckpointError("from a big-endian machine; save it as safetensors there")
    (tree, storages), (keys, _) = read_pickle(file), read_pickle(file)
    places = {}
    for key in keys:
        storage = storages[key]
        if storage.dtype is None:
            raise CheckpointError(
                f"storage {bounds.line(key)} is of a kind that isn't read (quantised?)"
            )
        if int.from_bytes(file.read(8), "little") != storage.count:
            raise CheckpointError(f"damaged: storage {bounds.line(key)} is not of its stated size")
        places[key] = file.tell()
        file.seek(storage.count * storage.dtype.itemsize, io.SEEK_CUR)

    def data(storage):
        start = places[storage.key]
        return memoryview(content)[start : start + storage.count * storage.dtype.itemsize]

    return _tensors(tree, data, len(content))


def _read_safetensors(file):
    """The whole of a safetensors file. The library's own NumPy reader knows no bfloat16."""
    length = int.from_bytes(file.read(8), "little")
    header = json.loads(file.read(min(length, 100_000_000)))
    header.pop("__metadata__", None)
    tensors, held, whole = {}, 0, bounds.size(file)
    for name, entry in header.items():
        if entry["dtype"] not in SAFETENSORS:
            raise CheckpointError(
                f"tensor {bounds.line(name)} has dtype {bounds.line(entry['dtype'])}, which isn't "
                "read"
            )
        dtype, shape = np.dtype(SAFETENSORS[entry["dtype"]]), entry["shape"]
        begin, end = entry["data_offsets"]
        held += end - begin
        if begin < 0 or end - begin != math.prod(shape) * dtype.itemsize or held > whole:
            raise CheckpointError(f"damaged: tensor {bounds.line(name)} does not fill its place")
        file.seek(8 + length + begin)
        tensors[name] = _plain(np.frombuffer(file.read(end - begin), dtype).reshape(shape))
    return tensors


def _tensors(tree, data, whole):
    """{name: array} of the Tensors in a tree.

    data: storage -> the bytes of its values. whole: bytes of the file.
    """
    storages, tensors, held, filled = {}, {}, 0, 0
    for name, tensor in _leaves(tree):
        key = tensor.storage.key
        if key not in storages:
            storages[key] = data(tensor.storage)
            held += len(storages[key])
            stated = tensor.storage.count * tensor.storage.dtype.itemsize
            if len(storages[key]) != stated or held > whole:
                raise CheckpointError(
                    f"damaged: storage {bounds.line(key)} is not of its stated size"
                )
        tensors[name] = _view(name, tensor, storages[key])
        filled += tensors[name].nbytes
        bounds.check_sharing(filled, whole)
    return {name: _plain(tensor) for name, tensor in tensors.items()}


def _view(name, tensor, values):
    """The array that a Tensor is of its storage's bytes."""
    if 0 in tensor.shape:
        return np.zeros(tensor.shape, tensor.dtype)
    width = tensor.dtype.itemsize
    last = sum((n - 1) * step for n, step in zip(tensor.shape, tensor.strides, strict=True))
    if (tensor.offset + last + 1) * width > len(values):
        raise CheckpointError(f"damaged: tensor {bounds.line(name)} reaches beyond its storage")
    strides = tuple(step * width for step in tensor.strides)
    return np.ndarray(tensor.shape, tensor.dtype, values, tensor.offset * width, strides)


def _leaves(tree):
    """(name, Tensor) of all tensors in nested containers, in the file's order."""
    todo, count = [((), tree)], 0
    while todo:
        path, node = todo.pop()
        if isinstance(node, Tensor):
            yield "/".join(path), node
        elif isinstance(node, dict | list | tuple):
            items = node.items() if isinstance(node, dict) else enumerate(node)
            count += len(node)
            if count > NODES or len(path) == DEPTH:
                raise CheckpointError("nested too deeply, or in itself, to be a checkpoint")
            # Only strings and integers name anything.
            children = [((*path, str(k)), v) for k, v in items if isinstance(k, str | int)]
            todo += children[::-1]


def _plain(array):
    """bfloat16, which NumPy itself doesn't have, as float32."""
    return array.astype(np.float32) if array.dtype == ml_dtypes.bfloat16 else array

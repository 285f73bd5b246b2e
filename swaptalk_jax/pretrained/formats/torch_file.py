"""Tensors of a torch file (.pth .pt .ckpt .bin) or of a safetensors file, as NumPy arrays.

Nothing that a file holds is run: see torch_pickle.py.
"""

import io
import json
import math
import zipfile
import zlib
from pathlib import Path

import ml_dtypes
import numpy as np

from swaptalk_jax.errors import CheckpointError
from swaptalk_jax.pretrained.formats.torch_pickle import Tensor, walk

SAFETENSORS = {
    "BF16": ml_dtypes.bfloat16,
    "BOOL": np.bool_,
    "C64": np.complex64,
    **{f"{kind}{8 * n}": f"<{kind.lower()}{n}" for kind in "IUF" for n in (2, 4, 8)},
    "I8": np.int8,
    "U8": np.uint8,
}
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # first pickle of what torch.save wrote before 1.6
# A pickle of n bytes can name 2^n things, one inside the other; no checkpoint has as many as this.
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
    path = Path(path)
    try:
        with path.open("rb") as file:
            tensors = _read(file)
        if not tensors:
            raise CheckpointError(
                "holds no tensors; modules pickled whole aren't read, save a module's state_dict()"
            )
        return tensors
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error})") from error
    # What the stack machine, zipfile and NumPy say of bytes that make no sense.
    except (
        *(ArithmeticError, AttributeError, LookupError, MemoryError, TypeError, ValueError),
        *(EOFError, RuntimeError, zipfile.BadZipFile, zlib.error),
    ) as error:
        what = f"{type(error).__name__}: {str(error)[:100]}"
        raise CheckpointError(f"{path}: damaged or cut off, get it again ({what})") from error


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
        tree, _ = walk(io.BytesIO(archive.read(pickles[0])))
        return _tensors(tree, lambda storage: archive.read(f"{root}data/{storage.key}"))


def _read_legacy(file):
    """The older format: five pickles (the fourth is the content), then each storage's values."""
    magic, _ = walk(file)
    if magic != LEGACY_MAGIC:
        raise CheckpointError("a pickle, but not one of torch.save")
    walk(file)  # version of the protocol
    machine, _ = walk(file)
    if not machine["little_endian"]:
        raise CheckpointError("from a big-endian machine; save it as safetensors there")
    (tree, storages), (keys, _) = walk(file), walk(file)
    places = {}
    for key in keys:
        storage = storages[key]
        if storage.dtype is None:
            raise CheckpointError(f"storage {key} is of a kind that isn't read (quantised?)")
        if int.from_bytes(file.read(8), "little") != storage.count:
            raise CheckpointError(f"damaged: storage {key} is not of its stated size")
        places[key] = file.tell()
        file.seek(storage.count * storage.dtype.itemsize, io.SEEK_CUR)

    def data(storage):
        file.seek(places[storage.key])
        return file.read(storage.count * storage.dtype.itemsize)

    return _tensors(tree, data)


def _read_safetensors(file):
    """The whole of a safetensors file. The library's own NumPy reader knows no bfloat16."""
    length = int.from_bytes(file.read(8), "little")
    header = json.loads(file.read(min(length, 100_000_000)))
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        if entry["dtype"] not in SAFETENSORS:
            raise CheckpointError(f"tensor {name} has dtype {entry['dtype']}, which isn't read")
        dtype, shape = np.dtype(SAFETENSORS[entry["dtype"]]), entry["shape"]
        begin, end = entry["data_offsets"]
        if begin < 0 or end - begin != math.prod(shape) * dtype.itemsize:
            raise CheckpointError(f"damaged: tensor {name} does not fill its place")
        file.seek(8 + length + begin)
        tensors[name] = _plain(np.frombuffer(file.read(end - begin), dtype).reshape(shape))
    return tensors


def _tensors(tree, data):
    """{name: array} of the Tensors in a tree; data(storage) -> the bytes of its values."""
    known, tensors = {}, {}
    for name, tensor in _leaves(tree):
        storage = tensor.storage
        if storage.key not in known:
            known[storage.key] = data(storage)
            if len(known[storage.key]) != storage.count * storage.dtype.itemsize:
                raise CheckpointError(f"damaged: storage {storage.key} is not of its stated size")
        width = tensor.dtype.itemsize
        if 0 in tensor.shape:
            tensors[name] = np.zeros(tensor.shape, tensor.dtype)
            continue
        last = sum((n - 1) * step for n, step in zip(tensor.shape, tensor.strides, strict=True))
        if (tensor.offset + last + 1) * width > len(known[storage.key]):
            raise CheckpointError(f"damaged: tensor {name} reaches beyond its storage")
        strides = tuple(step * width for step in tensor.strides)
        tensors[name] = _plain(
            np.ndarray(
                tensor.shape, tensor.dtype, known[storage.key], tensor.offset * width, strides
            )
        )
    return tensors


def _leaves(tree):
    """(name, Tensor) of all tensors in nested containers, in the file's order."""
    todo, count = [((), tree)], 0
    while todo:
        path, node = todo.pop()
        count += 1
        if count > NODES or len(path) > DEPTH:
            raise CheckpointError("nested too deeply, or in itself, to be a checkpoint")
        if isinstance(node, Tensor):
            yield "/".join(path), node
        elif isinstance(node, dict | list | tuple):
            items = node.items() if isinstance(node, dict) else enumerate(node)
            todo += [((*path, str(key)), value) for key, value in items][::-1]


def _plain(array):
    """bfloat16, which NumPy itself doesn't have, as float32."""
    return array.astype(np.float32) if array.dtype == ml_dtypes.bfloat16 else array

"""The reader of CTranslate2 files, on files made by hand."""

import struct

import numpy as np
import pytest

from swaptalk_jax.errors import CheckpointError
from swaptalk_jax.pretrained.formats import ctranslate2


def name(text):
    return struct.pack("<H", len(text) + 1) + text.encode() + b"\0"


def model(variables, aliases=(), version=6):
    """The bytes of a file of float32 variables."""
    parts = [struct.pack("<I", version), name("WhisperSpec"), struct.pack("<II", 3, len(variables))]
    for key, x in variables.items():
        shape = struct.pack(f"<B{x.ndim}I", x.ndim, *x.shape)
        parts += [name(key), shape, struct.pack("<BI", 0, x.nbytes), x.tobytes()]
    parts.append(struct.pack("<I", len(aliases)))
    return b"".join(parts + [name(alias) + name(key) for alias, key in aliases])


def test_variables_and_aliases_are_read_and_every_cut_is_one_line(tmp_path):
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    whole = model({"a": x, "b": x[0]}, [("c", "a")])
    path = tmp_path / "model.bin"
    path.write_bytes(whole)
    tensors = ctranslate2.read(path)
    assert list(tensors) == ["a", "b", "c"]
    np.testing.assert_array_equal(tensors["c"], x)
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        with pytest.raises(CheckpointError, match="not a whole CTranslate2 model") as error:
            ctranslate2.read(path)
        assert str(error.value).isprintable()


def test_other_versions_and_aliases_of_nothing_are_refused(tmp_path):
    x, path = np.zeros(3, np.float32), tmp_path / "model.bin"
    for data, complaint in (
        (model({"a": x}, version=4), "binary version 4"),
        (model({"a": x}, [("b", "c")]), "b stands for c, which is absent"),
        (model({"a": np.zeros(10_000, np.float32)}, [(f"b{i}", "a") for i in range(99)]), "copies"),
    ):
        path.write_bytes(data)
        with pytest.raises(CheckpointError, match=complaint):
            ctranslate2.read(path)

"""Reads the tensors of a CTranslate2 model (`model.bin`, binary versions 5 and 6): data only.

The file is little-endian: uint32 version, name of the specification, uint32 revision, uint32 number
of variables; each is its name, uint8 rank, uint32 dimensions, uint8 dtype, uint32 bytes, values.
A name is uint16 length (its closing zero counts) and that many bytes. Aliases follow: uint32 count,
and pairs of names, the new one and the variable that it stands for.
"""

import struct

import ml_dtypes
import numpy as np

from swaptalk_jax.pretrained.formats import bounds

VERSIONS = (5, 6)
DTYPES = (np.float32, np.int8, np.int16, np.int32, np.float16, ml_dtypes.bfloat16)


def read(path):
    """{name: array} of all variables, as stored (read-only views of one block of memory).

    Raises CheckpointError: not such a file, cut off, or of another version.
    """
    with bounds.reading(path, "CTranslate2 model") as file:
        data = file.read()
        tensors = _Reader(data).tensors()
        bounds.check_sharing(sum(x.nbytes for x in tensors.values()), len(data))
        return tensors


class _Reader:
    """A position in the file's bytes."""

    def __init__(self, data):
        self.data, self.at = memoryview(data), 0

    def tensors(self):
        version = self._number("I")
        if version not in VERSIONS:
            raise ValueError(f"binary version {version}, read are 5 and 6")
        self._name()
        self._number("I")  # revision of the specification
        variables = dict(self._variable() for _ in range(self._number("I")))
        for _ in range(self._number("I")):
            alias, name = self._name(), self._name()
            if name not in variables:
                raise ValueError(f"{alias} stands for {name}, which is absent")
            variables[alias] = variables[name]
        return variables

    def _variable(self):
        name = self._name()
        shape = tuple(self._number("I") for _ in range(self._number("B")))
        dtype = np.dtype(DTYPES[self._number("B")])
        block = self._bytes(self._number("I"))
        return name, np.frombuffer(block, dtype).reshape(shape)

    def _name(self):
        return bytes(self._bytes(self._number("H"))).rstrip(b"\0").decode()

    def _number(self, kind):
        size = struct.calcsize(kind)
        return struct.unpack(f"<{kind}", self._bytes(size))[0]

    def _bytes(self, count):
        block = self.data[self.at : self.at + count]
        if len(block) < count:
            raise ValueError(f"it ends at byte {len(self.data)}, inside of a variable")
        self.at += count
        return block

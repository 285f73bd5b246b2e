"""ONNX and TFLite files read from their bytes: tensors, and the operations in the file's order.

Nothing of a file is run, and no library of its format is needed. What is read is what networks of
convolutions hold; formats: onnx.proto3 (protobuf) and schema.fbs version 3 (FlatBuffers).
"""

import dataclasses
import struct
from pathlib import Path

import numpy as np

from swaptalk_jax.errors import CheckpointError


@dataclasses.dataclass(frozen=True)
class Node:
    """An operation: names of what it reads and makes, attributes as Python values."""

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict


@dataclasses.dataclass(frozen=True)
class Graph:
    """inputs: names of what is fed; tensors: the constants by name; nodes in the file's order."""

    inputs: tuple[str, ...]
    tensors: dict[str, np.ndarray]
    nodes: tuple[Node, ...]


def onnx(path):
    """The graph of an ONNX file, constants as the file stores them (quantised ones too).

    Raises CheckpointError: cannot be read, is not ONNX, or keeps its weights in another file.
    """
    return _read(path, "ONNX", _onnx_graph)


def tflite(path):
    """The first graph of a TFLite file; operations have TFLite's names (OPERATORS, else a number).

    Raises CheckpointError: cannot be read, or is not TFLite.
    """
    return _read(path, "TFLite", _tflite_graph)


def _read(path, kind, parse):
    try:
        graph = parse(memoryview(Path(path).read_bytes()))
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error
    except _External as error:
        raise CheckpointError(
            f"{path}: keeps its weights in another file ({error}); save it with its weights inside"
        ) from error
    # Bytes that are something else show as any of these somewhere in the parsing.
    except (ValueError, LookupError, TypeError, ArithmeticError, struct.error) as error:
        raise CheckpointError(f"{path}: not a whole {kind} file") from error
    if not graph.nodes:
        raise CheckpointError(f"{path}: not a whole {kind} file (no operations in it)")
    return graph


class _External(Exception):
    """An ONNX tensor whose data lie outside of the file."""


# ONNX: onnx.proto's numbers of fields, and of TensorProto.DataType.

_DTYPES = {
    1: np.float32, 2: np.uint8, 3: np.int8, 4: np.uint16, 5: np.int16, 6: np.int32, 7: np.int64,
    9: np.bool_, 10: np.float16, 11: np.float64, 12: np.uint32, 13: np.uint64,
}  # fmt: skip


def _onnx_graph(data):
    graph = _message(_one(_message(data), 7))
    tensors = dict(_tensor(t) for t in graph.get(5, ()))
    nodes = []
    for fields in map(_message, graph.get(1, ())):
        attributes = dict(_attribute(a) for a in fields.get(5, ()))
        node = Node(
            _text(fields, 4),
            tuple(str(name, "utf-8") for name in fields.get(1, ())),
            tuple(str(name, "utf-8") for name in fields.get(2, ())),
            attributes,
        )
        if node.op == "Constant" and isinstance(attributes.get("value"), np.ndarray):
            tensors[node.outputs[0]] = attributes["value"]
        else:
            nodes.append(node)
    # Old files list their constants among the inputs too.
    names = (_text(_message(value), 1) for value in graph.get(11, ()))
    return Graph(tuple(n for n in names if n not in tensors), tensors, tuple(nodes))


def _tensor(data):
    """TensorProto -> (name, array)."""
    fields = _message(data)
    name, dtype = _text(fields, 8), np.dtype(_DTYPES[_one(fields, 2)])
    shape = _integers(fields, 1)
    if _one(fields, 14, 0) == 1:
        raise _External(name)
    if 9 in fields:
        return name, np.frombuffer(fields[9][0], dtype.newbyteorder("<")).reshape(shape)
    if 4 in fields:
        values = _floats(fields, 4)
    elif 10 in fields:
        values = np.frombuffer(b"".join(fields[10]), "<f8")
    else:
        values = np.array(_integers(fields, 7 if dtype == np.int64 else 5))
        if dtype == np.float16:  # stored as its bits
            values = values.astype(np.uint16).view(np.float16)
    return name, values.astype(dtype).reshape(shape)


def _attribute(data):
    """AttributeProto -> (name, value); None for kinds that no network here has."""
    fields = _message(data)
    read = {
        1: lambda: struct.unpack("<f", fields[2][0])[0] if 2 in fields else 0.0,
        2: lambda: _signed(_one(fields, 3, 0)),
        3: lambda: _text(fields, 4),
        4: lambda: _tensor(fields[5][0])[1],
        6: lambda: _floats(fields, 7).tolist(),
        7: lambda: _integers(fields, 8),
    }
    return _text(fields, 1), read.get(_one(fields, 20, 0), lambda: None)()


def _message(data):
    """Protobuf message -> {field number: list of values}: ints, or memoryviews of the bytes."""
    fields, at = {}, 0
    while at < len(data):
        tag, at = _varint(data, at)
        kind = tag & 7
        if kind == 0:
            value, at = _varint(data, at)
        else:
            length, at = _varint(data, at) if kind == 2 else ({1: 8, 5: 4}[kind], at)
            value, at = data[at : at + length], at + length
            if at > len(data):
                raise ValueError("it is cut off")
        fields.setdefault(tag >> 3, []).append(value)
    return fields


def _varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def _signed(value):
    return value - (1 << 64) if value >= 1 << 63 else value


def _one(fields, number, *default):
    return fields[number][0] if number in fields or not default else default[0]


def _text(fields, number):
    return str(fields[number][0], "utf-8") if number in fields else ""


def _integers(fields, number):
    """A repeated integer field, packed or not, as a list."""
    values = []
    for value in fields.get(number, ()):
        if isinstance(value, int):
            values.append(_signed(value))
            continue
        at = 0
        while at < len(value):
            integer, at = _varint(value, at)
            values.append(_signed(integer))
    return values


def _floats(fields, number):
    """A repeated float field, packed or not, as float32 [n]."""
    return np.frombuffer(b"".join(fields.get(number, ())), "<f4")


# TFLite: schema.fbs's numbers of fields (the order within each table), and of BuiltinOperator.

OPERATORS = {
    0: "ADD", 3: "CONV_2D", 4: "DEPTHWISE_CONV_2D", 18: "MUL", 19: "RELU", 22: "RESHAPE",
    41: "SUB", 101: "ABS",
}  # fmt: skip
_TFLITE_DTYPES = {0: "<f4", 1: "<f2", 2: "<i4", 3: "u1", 4: "<i8", 6: "?", 7: "<i2", 9: "i1"}


def _tflite_graph(data):
    if data[4:8] != b"TFL3":
        raise ValueError("it does not begin as one")
    model = _Table(data, _u32(data, 0))
    # Codes below 127 stand in the old byte field, all others in the new one.
    codes = [max(c.number(0, "b"), c.number(3, "i")) for c in model.tables(1)]
    buffers, graph = model.tables(4), model.tables(2)[0]
    names, tensors = [], {}
    for i, tensor in enumerate(graph.tables(0)):
        # Names need not be unique.
        names.append(f"{i}:{tensor.text(3)}")
        content = buffers[tensor.number(2, "I")].vector(0, "B")
        if len(content):
            dtype = np.dtype(_TFLITE_DTYPES[tensor.number(1, "b")])
            shape = tensor.vector(0, "i")
            tensors[names[-1]] = np.frombuffer(content.tobytes(), dtype).reshape(shape)
    nodes = []
    for operator in graph.tables(3):
        code = codes[operator.number(0, "I")]
        op = OPERATORS.get(code, str(code))
        inputs, outputs = (
            tuple(names[i] for i in operator.vector(field, "i") if i >= 0) for field in (1, 2)
        )
        nodes.append(Node(op, inputs, outputs, _options(op, operator.table(4))))
    return Graph(tuple(names[i] for i in graph.vector(1, "i")), tensors, tuple(nodes))


def _options(op, options):
    """Conv2DOptions and DepthwiseConv2DOptions; other operations have none that matter here."""
    if options is None or op not in ("CONV_2D", "DEPTHWISE_CONV_2D"):
        return {}
    fused = 3 if op == "CONV_2D" else 4
    return {
        "padding": ("SAME", "VALID")[options.number(0, "b")],
        "strides": [options.number(2, "i"), options.number(1, "i")],
        "activation": options.number(fused, "b"),
    }


def _u32(data, at):
    return struct.unpack_from("<I", data, at)[0]


class _Table:
    """A FlatBuffers table: fields by their number, as the schema's default where left out."""

    def __init__(self, data, at):
        self.data, self.at = data, at
        vtable = at - struct.unpack_from("<i", data, at)[0]
        size = struct.unpack_from("<H", data, vtable)[0]
        self.offsets = struct.unpack_from(f"<{(size - 4) // 2}H", data, vtable + 4)

    def _position(self, field):
        offset = self.offsets[field] if field < len(self.offsets) else 0
        return self.at + offset if offset else None

    def number(self, field, code):
        """Scalar of struct's `code`; every default that is read here is 0."""
        at = self._position(field)
        return 0 if at is None else struct.unpack_from(f"<{code}", self.data, at)[0]

    def table(self, field):
        """The table that a field points at, or None."""
        at = self._position(field)
        return None if at is None else _Table(self.data, at + _u32(self.data, at))

    def vector(self, field, code):
        """Vector of scalars as an array."""
        at = self._position(field)
        if at is None:
            return np.empty(0, f"<{code}")
        at += _u32(self.data, at)
        return np.frombuffer(self.data, np.dtype(f"<{code}"), _u32(self.data, at), at + 4)

    def tables(self, field):
        """Vector of tables as a list."""
        at = self._position(field)
        if at is None:
            return []
        at += _u32(self.data, at)
        places = range(at + 4, at + 4 + 4 * _u32(self.data, at), 4)
        return [_Table(self.data, place + _u32(self.data, place)) for place in places]

    def text(self, field):
        """A string."""
        return self.vector(field, "B").tobytes().decode()

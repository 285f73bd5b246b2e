"""TFLite files, read by the library tflite of the extra `pretrained`. No operation is run."""

import functools

import numpy as np

from swaptalk_jax.errors import CheckpointError
from swaptalk_jax.pretrained.formats import bounds
from swaptalk_jax.pretrained.formats.graph import Graph, Node, check_counts

LARGEST = 1 << 30  # bytes; MobileFaceNet's file has 5 MB
ARGUMENTS = 64  # of an operation
DTYPES = {
    "FLOAT32": "<f4", "FLOAT16": "<f2", "INT32": "<i4", "UINT8": "u1", "INT64": "<i8",
    "BOOL": "?", "INT16": "<i2", "INT8": "i1",
}  # fmt: skip


def read_graph(path):
    """The first graph of a TFLite file; operations have TFLite's names (or a number).

    Raises CheckpointError, one line: the library is missing, or the file cannot be read or is not
    TFLite.
    """
    try:
        import tflite
    except ImportError:
        raise CheckpointError(
            f"{path}: reading TFLite needs the library tflite: pip install -e '.[pretrained]'"
        ) from None
    with bounds.reading(path, "TFLite file", LARGEST) as file:
        data = file.read()
        if data[4:8] != b"TFL3":
            raise ValueError("it does not begin as one")
        return _graph(tflite, tflite.Model.GetRootAs(data, 0))


def _graph(tflite, model):
    graph, tensors = model.Subgraphs(0), {}
    check_counts(graph.OperatorsLength(), graph.TensorsLength())
    for i in range(graph.TensorsLength()):
        values = _constant(tflite, model, graph.Tensors(i))
        if values is not None:
            tensors[_name(i)] = values
    nodes = []
    for i in range(graph.OperatorsLength()):
        operator = graph.Operators(i)
        op = _op(tflite, model.OperatorCodes(operator.OpcodeIndex()))
        inputs = _arguments(operator.InputsLength(), operator.Inputs)
        outputs = _arguments(operator.OutputsLength(), operator.Outputs)
        nodes.append(Node(op, inputs, outputs, _options(tflite, op, operator.BuiltinOptions())))
    return Graph(_arguments(graph.InputsLength(), graph.Inputs), tensors, tuple(nodes))


def _name(index):
    """Tensors go by their number: names in the file need not be unique."""
    return f"tensor {index}"


def _constant(tflite, model, tensor):
    """The values of a tensor that the file holds, else None."""
    buffer = model.Buffers(tensor.Buffer())
    if not buffer.DataLength():
        return None
    dtype = DTYPES[_names(tflite.TensorType)[tensor.Type()]]
    shape = tensor.ShapeAsNumpy() if tensor.ShapeLength() else ()
    return np.frombuffer(buffer.DataAsNumpy(), dtype).reshape(shape)


def _op(tflite, code):
    """The name of an operation's code."""
    # Codes below 127 may stand in the older field alone; above, it holds 127.
    number = max(code.DeprecatedBuiltinCode(), code.BuiltinCode())
    return _names(tflite.BuiltinOperator).get(number, str(number))


@functools.cache
def _names(enumeration):
    """{number: name} of a FlatBuffers enumeration."""
    return {number: name for name, number in vars(enumeration).items() if name[0] != "_"}


def _arguments(count, index):
    """Names of an operation's tensors; -1 stands for one that is left out."""
    if count > ARGUMENTS:
        raise ValueError(f"an operation with {count} arguments")
    return tuple(_name(number) for number in map(index, range(count)) if number >= 0)


def _options(tflite, op, table):
    """How a convolution strides; other operations have no options that matter here."""
    kinds = {
        "CONV_2D": tflite.Conv2DOptions, "DEPTHWISE_CONV_2D": tflite.DepthwiseConv2DOptions,
    }  # fmt: skip
    if table is None or op not in kinds:
        return {}
    options = kinds[op]()
    options.Init(table.Bytes, table.Pos)
    return {
        "padding": _names(tflite.Padding)[options.Padding()],
        "strides": [options.StrideH(), options.StrideW()],
        "activation": options.FusedActivationFunction(),
    }

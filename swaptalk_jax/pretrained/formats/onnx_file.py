"""ONNX files, read by the library onnx of the extra `pretrained`. No operation is run."""

from swaptalk_jax.errors import CheckpointError
from swaptalk_jax.pretrained.formats import bounds
from swaptalk_jax.pretrained.formats.graph import Graph, Node, check_counts

LARGEST = 1 << 30  # bytes; ArcFace's largest file has 261 MB


def read_graph(path):
    """The graph of an ONNX file, constants as the file stores them (quantised ones too).

    Only this one file is opened. Raises CheckpointError, one line: the library is missing, or the
    file cannot be read, is not ONNX, or keeps its weights in another file.
    """
    try:
        import onnx
        from google.protobuf.message import DecodeError
    except ImportError:
        raise CheckpointError(
            f"{path}: reading ONNX needs the library onnx: pip install -e '.[pretrained]'"
        ) from None
    with bounds.reading(path, "ONNX file", LARGEST) as file:
        model = onnx.ModelProto()
        try:
            # Not onnx.load: it would open the files that the weights are said to lie in.
            model.ParseFromString(file.read())
        except DecodeError as error:
            raise ValueError(error) from error
        return _graph(onnx, model.graph)


def _graph(onnx, proto):
    check_counts(len(proto.node), len(proto.initializer))
    tensors = {tensor.name: _array(onnx, tensor) for tensor in proto.initializer}
    nodes = []
    for node in proto.node:
        attributes = {a.name: _attribute(onnx, a) for a in node.attribute}
        if node.op_type == "Constant" and "value" in attributes:
            tensors[node.output[0]] = attributes["value"]
        else:
            nodes.append(Node(node.op_type, tuple(node.input), tuple(node.output), attributes))
    # Old files list their constants among the inputs too.
    inputs = tuple(value.name for value in proto.input if value.name not in tensors)
    return Graph(inputs, tensors, tuple(nodes))


def _array(onnx, tensor):
    """TensorProto -> array."""
    # The library would open the other file, wherever it is.
    if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
        raise CheckpointError(
            f"keeps its weights in another file ({bounds.line(tensor.name, 80)}); save it with "
            "its weights inside"
        )
    return onnx.numpy_helper.to_array(tensor)


def _attribute(onnx, attribute):
    """AttributeProto -> value; None for kinds that no network here has."""
    kinds = onnx.AttributeProto
    if attribute.type == kinds.TENSOR:
        return _array(onnx, attribute.t)
    if attribute.type == kinds.STRING:
        return attribute.s.decode()
    if attribute.type == kinds.INTS:
        return list(attribute.ints)
    if attribute.type == kinds.FLOATS:
        return list(attribute.floats)
    return {kinds.INT: attribute.i, kinds.FLOAT: attribute.f}.get(attribute.type)

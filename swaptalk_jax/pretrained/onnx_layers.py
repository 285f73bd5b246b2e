"""An ONNX file as layers: convolutions, BatchNorms, PReLUs, sums, Gemm; int8 weights too."""

import numpy as np

from swaptalk_jax.pretrained.formats import onnx_file
from swaptalk_jax.pretrained.layers import Layer, Layers, Weights, unknown


def read(path):
    """Layers of an ONNX file. Raises CheckpointError, one line, for other files."""
    graph = onnx_file.read_graph(path)
    constants, names, layers = Weights(path, graph.tensors), {}, []
    for node in graph.nodes:
        inputs = tuple(names.get(name, name) for name in node.inputs)
        if all(name in constants for name in inputs if name):
            values = [constants.stored(name) for name in inputs if name]
            constants.add(node.outputs[0], _constant(path, node, values))
        elif node.op in ("Identity", "Cast", "Dropout", "Flatten", "Reshape"):
            names[node.outputs[0]] = inputs[0]
        else:
            layers.append(_layer(path, node, inputs, constants))
    return Layers(path, graph, layers)


def _constant(path, node, values):
    """What an operation makes of constants alone."""
    if node.op in ("Identity", "Unsqueeze"):  # only slopes are unsqueezed, and they are read flat
        return values[0]
    if node.op == "Reshape":
        return values[0].reshape(values[1].tolist())
    if node.op == "DequantizeLinear":
        return _dequantized(path, node, *values)
    raise unknown(path, node)


def _dequantized(path, node, quantised, scale, zero=0.0):
    """(quantised - zero) * scale; scale and zero are one number, one a row, or one a block."""
    axis = node.attributes.get("axis", 1)
    scale, zero = np.asarray(scale, np.float64), np.asarray(zero, np.float64)
    if scale.ndim == quantised.ndim:  # in blocks along the axis; the last may be shorter
        block, length = node.attributes["block_size"], quantised.shape[axis]
        if block < 1 or scale.shape[axis] != -(-length // block):
            raise unknown(path, node)
        block_of = np.arange(length) // block
        scale, zero = (np.broadcast_to(v, scale.shape).take(block_of, axis) for v in (scale, zero))
    elif scale.size > 1:
        along = [-1 if i == axis % quantised.ndim else 1 for i in range(quantised.ndim)]
        scale, zero = (v.reshape(along) if v.size > 1 else v for v in (scale, zero))
    if np.broadcast_shapes(quantised.shape, scale.shape, zero.shape) != quantised.shape:
        raise unknown(path, node)
    return (quantised - zero) * scale


def _layer(path, node, inputs, constants):
    """One operation that reads the image as a Layer."""
    image = tuple(name for name in inputs if name and name not in constants)
    weights = [constants.take(name) for name in inputs if name in constants]
    attributes, values = node.attributes, None
    if node.op == "Conv":
        kind, values = "conv", _convolution(path, node, *weights)
    elif node.op == "Gemm" and not attributes.get("transA", 0):
        kernel = weights[0].T if attributes.get("transB", 0) else weights[0]
        kind, values = "dense", _dense(kernel, *weights[1:])
    elif node.op == "MatMul" and weights:
        kind, values = "dense", _dense(*weights)
    elif node.op == "BatchNormalization" and all(weight.ndim == 1 for weight in weights):
        gamma, beta, mean, var = weights
        scale = gamma / np.sqrt(var + attributes.get("epsilon", 1e-5))
        kind, values = "affine", {"scale": scale, "shift": beta - mean * scale}
    elif node.op == "PRelu":
        kind, values = "prelu", {"slope": weights[0].reshape(-1)}
    elif node.op == "Add" and len(image) == 2:
        kind, values = "add", {}
    elif node.op in ("Add", "Sub", "Mul", "Div") and inputs[0] == image[0]:
        kind, values = "affine", _arithmetic(node.op, weights[0].reshape(-1))
    if values is None:
        raise unknown(path, node)
    return Layer(kind, image, node.outputs[0], values)


def _convolution(path, node, weight, bias=None):
    """Values of a convolution that keeps the image's size, but for its stride."""
    attributes, kernel = node.attributes, weight.transpose(2, 3, 1, 0)
    pads = attributes.get("pads", [0] * 4)
    if pads != [(len(kernel) - 1) // 2] * 4 or max(attributes.get("dilations", [1])) > 1:
        raise unknown(path, node)
    return {
        "kernel": kernel,
        "bias": np.zeros(kernel.shape[3]) if bias is None else bias,
        "stride": attributes.get("strides", [1])[0],
    }


def _dense(kernel, bias=None):
    return {"kernel": kernel, "bias": np.zeros(kernel.shape[1]) if bias is None else bias}


def _arithmetic(op, value):
    """x op value as x * scale + shift."""
    scale, shift = {
        "Add": (1.0, value), "Sub": (1.0, -value), "Mul": (value, 0.0), "Div": (1 / value, 0.0),
    }[op]  # fmt: skip
    return {"scale": np.asarray(scale), "shift": np.asarray(shift)}

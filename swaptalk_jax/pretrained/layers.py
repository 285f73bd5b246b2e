"""Graphs of files.py -> the layers of a convolutional network, in our layout, norms folded away.

Layers are followed along their edges, never by their names, which differ from export to export.
"""

import dataclasses

import jax
import numpy as np
from flax import traverse_util

from swaptalk_jax.errors import CheckpointError
from swaptalk_jax.pretrained.formats import graphs


@dataclasses.dataclass
class Layer:
    """conv: kernel [h w in/groups out], bias, stride, pads | dense: kernel [in out], bias |
    affine: scale, shift | prelu: slope | add. `values` are float64, so that folding costs nothing.

    Dense kernels read a flattened image [c h w].
    """

    kind: str
    inputs: tuple[str, ...]
    output: str
    values: dict


class Layers:
    """A network's layers, walked from its input: `take` moves on, `at` is where it stands.

    Folded where that is exact: an affine behind a convolution or dense layer, and one before a
    dense layer. Raises CheckpointError where the graph is not a network of such layers.
    """

    def __init__(self, path, graph, layers):
        self.path, self.at = path, graph.inputs[0]
        self.layers = _folded(layers)

    def after(self, name):
        """Layers that read `name`."""
        return [layer for layer in self.layers if name in layer.inputs]

    def kinds(self):
        """Kinds of the layers that read what stands now, sorted."""
        return sorted(layer.kind for layer in self.after(self.at))

    def take(self, kind):
        """The one layer of a kind that reads what stands now; goes on to what it makes."""
        found = [layer for layer in self.after(self.at) if layer.kind == kind]
        if len(found) != 1:
            raise CheckpointError(
                f"{self.path}: not the network that this importer knows: behind {self.at} stands "
                f"{', '.join(self.kinds()) or 'nothing'} where one {kind} should"
            )
        self.at = found[0].output
        return found[0]

    def conv(self, prelu=True):
        """The convolution that stands now, and its PReLU -> parameters of FoldedConv, stride."""
        layer = self.take("conv")
        params = {key: layer.values[key] for key in ("kernel", "bias")}
        if prelu:
            params["slope"] = self.take("prelu").values["slope"]
        return params, layer.values["stride"]

    def pixels(self):
        """What the first kernel is multiplied by, so that it reads [-1, 1] instead of 0..255.

        1 where the graph does not scale pixels itself, as insightface's: it is fed (x - 127.5) /
        127.5.
        """
        if self.kinds() != ["affine"]:
            return 1.0
        values = self.take("affine").values
        if not np.allclose(values["scale"] * 127.5 + values["shift"], 0, atol=1e-3):
            raise CheckpointError(f"{self.path}: its pixels are not centred on 127.5")
        return float(values["scale"].flat[0] * 127.5)

    def dense(self, channels):
        """Parameters of the nn.Dense that stands now, over a flattened [h w channels], and h."""
        values = self.take("dense").values
        side = round((len(values["kernel"]) / channels) ** 0.5)
        if side * side * channels != len(values["kernel"]):
            raise CheckpointError(f"{self.path}: its last layer does not read a square grid")
        kernel = values["kernel"].reshape(channels, side, side, -1).transpose(1, 2, 0, 3)
        return {"kernel": kernel.reshape(len(values["kernel"]), -1), "bias": values["bias"]}, side


def checked(path, module, params, fields):
    """(params as float32, fields), where they are just what the module asks for."""
    params = jax.tree.map(lambda x: np.ascontiguousarray(x, np.float32), params)
    image = jax.ShapeDtypeStruct((1, 112, 112, 3), np.float32)
    wanted = jax.eval_shape(module(**fields).init, jax.random.key(0), image)["params"]
    wanted, flat = (traverse_util.flatten_dict(tree, sep="/") for tree in (wanted, params))
    for name in wanted | flat:
        shapes = [tree[name].shape if name in tree else None for tree in (flat, wanted)]
        if shapes[0] != shapes[1]:
            raise CheckpointError(
                f"{path}: not the network that this importer knows: {name} is {shapes[0]}, not "
                f"{shapes[1]}"
            )
    return params, fields


def onnx(path):
    """Layers of an ONNX file: convolutions, BatchNorms, PReLUs, sums, Gemm; int8 weights too."""
    graph = graphs.onnx(path)
    constants, names, layers = dict(graph.tensors), {}, []
    for node in graph.nodes:
        inputs = tuple(names.get(name, name) for name in node.inputs)
        if all(name in constants for name in inputs if name):
            constants[node.outputs[0]] = _constant(path, node, [constants[n] for n in inputs if n])
        elif node.op in ("Identity", "Cast", "Dropout", "Flatten", "Reshape"):
            names[node.outputs[0]] = inputs[0]
        else:
            layers.append(_onnx_layer(path, node, inputs, constants))
    return Layers(path, graph, layers)


def _constant(path, node, values):
    if node.op in ("Identity", "Unsqueeze"):  # unsqueezed are only slopes, which are read flat
        return values[0]
    if node.op == "Reshape":
        return values[0].reshape(values[1].tolist())
    if node.op == "DequantizeLinear":
        quantised, scale, zero = (np.asarray(v, np.float64) for v in (*values, 0.0)[:3])
        axis = node.attributes.get("axis", 1)
        if scale.ndim == quantised.ndim:  # in blocks along the axis, the last one may be shorter
            block, length = node.attributes["block_size"], quantised.shape[axis]
            scale, zero = (
                np.repeat(np.broadcast_to(v, scale.shape), block, axis).take(range(length), axis)
                for v in (scale, zero)
            )
        elif scale.size > 1:
            along = [-1 if i == axis % quantised.ndim else 1 for i in range(quantised.ndim)]
            scale, zero = (v.reshape(along) if v.size > 1 else v for v in (scale, zero))
        return (quantised - zero) * scale
    raise _unknown(path, node)


def _onnx_layer(path, node, inputs, constants):
    """One operation that reads the image as a Layer."""
    dynamic = tuple(name for name in inputs if name and name not in constants)
    weights = [np.asarray(constants[n], np.float64) for n in inputs if n in constants]
    attributes = node.attributes
    if node.op == "Conv":
        kernel = weights[0].transpose(2, 3, 1, 0)
        pads = attributes.get("pads", [0] * 4)
        values = {
            "kernel": kernel,
            "bias": weights[1] if len(weights) > 1 else np.zeros(kernel.shape[3]),
            "stride": attributes.get("strides", [1])[0],
        }
        if pads != [(len(kernel) - 1) // 2] * 4 or max(attributes.get("dilations", [1])) > 1:
            raise _unknown(path, node)
        return Layer("conv", dynamic, node.outputs[0], values)
    if node.op == "Gemm" and not attributes.get("transA", 0):
        kernel = weights[0].T if attributes.get("transB", 0) else weights[0]
        bias = weights[1] if len(weights) > 1 else np.zeros(kernel.shape[1])
        values = {"kernel": kernel, "bias": bias}
        return Layer("dense", dynamic, node.outputs[0], values)
    if node.op == "MatMul" and weights:
        values = {"kernel": weights[0], "bias": np.zeros(weights[0].shape[1])}
        return Layer("dense", dynamic, node.outputs[0], values)
    if node.op == "BatchNormalization":
        gamma, beta, mean, var = weights
        scale = gamma / np.sqrt(var + attributes.get("epsilon", 1e-5))
        values = {"scale": scale, "shift": beta - mean * scale}
        return Layer("affine", dynamic, node.outputs[0], values)
    if node.op == "PRelu":
        return Layer("prelu", dynamic, node.outputs[0], {"slope": weights[0].reshape(-1)})
    if node.op == "Add" and len(dynamic) == 2:
        return Layer("add", dynamic, node.outputs[0], {})
    if node.op in ("Add", "Sub", "Mul", "Div") and inputs[0] == dynamic[0]:
        scale, shift, value = 1.0, 0.0, weights[0].reshape(-1)
        scale, shift = {
            "Add": (scale, value), "Sub": (scale, -value), "Mul": (value, shift),
            "Div": (1 / value, shift),
        }[node.op]  # fmt: skip
        values = {"scale": np.asarray(scale), "shift": np.asarray(shift)}
        return Layer("affine", dynamic, node.outputs[0], values)
    raise _unknown(path, node)


def tflite(path):
    """Layers of a float TFLite file: convolutions, sums, and PReLUs as relu(x) + a (x - |x|)."""
    graph = graphs.tflite(path)
    parts, names, layers = {}, {}, []  # parts: (what, of which tensor) of a PReLU's operations
    for node in graph.nodes:
        inputs = tuple(names.get(name, name) for name in node.inputs)
        dynamic = tuple(name for name in inputs if name not in graph.tensors)
        weights = [np.asarray(graph.tensors[n], np.float64) for n in inputs if n in graph.tensors]
        output, pieces = node.outputs[0], [parts.get(name, (None, None)) for name in dynamic]
        if node.op == "RESHAPE":
            names[output] = inputs[0]
        elif node.op in ("CONV_2D", "DEPTHWISE_CONV_2D") and not node.attributes["activation"]:
            order = (1, 2, 3, 0) if node.op == "CONV_2D" else (1, 2, 0, 3)
            values = {
                "kernel": weights[0].transpose(order),
                "bias": weights[1],
                "stride": node.attributes["strides"][0],
            }
            layers.append(Layer("conv", dynamic, output, values))
        elif node.op in ("RELU", "ABS"):
            parts[output] = (node.op, dynamic[0])
        elif node.op == "SUB" and pieces[1] == ("ABS", dynamic[0]):
            parts[output] = ("twice the negative", dynamic[0])
        elif node.op == "MUL" and pieces[0][0] == "twice the negative":
            parts[output] = (weights[0], pieces[0][1])
        elif node.op == "ADD" and pieces[0][0] == "RELU" and pieces[0][1] == pieces[1][1]:
            values = {"slope": 2 * pieces[1][0].reshape(-1)}
            layers.append(Layer("prelu", (pieces[0][1],), output, values))
        elif node.op == "ADD" and len(dynamic) == 2:
            layers.append(Layer("add", dynamic, output, {}))
        else:
            raise _unknown(path, node)
    return Layers(path, graph, layers)


def _folded(layers):
    """The layers without the affines that their neighbours can take over."""
    layers = list(layers)
    for affine in [layer for layer in layers if layer.kind == "affine"]:
        (source,) = affine.inputs
        before = [layer for layer in layers if layer.output == source]
        after = [layer for layer in layers if affine.output in layer.inputs]
        alone = sum(source in layer.inputs for layer in layers) == 1
        scale, shift = affine.values["scale"], affine.values["shift"]
        if before and alone and before[0].kind in ("conv", "dense", "affine"):
            values = before[0].values
            weight = "scale" if before[0].kind == "affine" else "kernel"
            offset = "shift" if before[0].kind == "affine" else "bias"
            values[weight], values[offset] = values[weight] * scale, values[offset] * scale + shift
            before[0].output = affine.output
        elif len(after) == 1 and after[0].kind == "dense":
            values = after[0].values
            kernel = values["kernel"].reshape(scale.size, -1, values["kernel"].shape[1])
            values["bias"] = values["bias"] + np.einsum("c,cpo->o", shift, kernel)
            values["kernel"] = (kernel * scale[:, None, None]).reshape(values["kernel"].shape)
            after[0].inputs = affine.inputs
        else:
            continue
        layers.remove(affine)
    return layers


def _unknown(path, node):
    return CheckpointError(
        f"{path}: {node.op} at {node.outputs[0]} is no part of the networks that are known here"
    )

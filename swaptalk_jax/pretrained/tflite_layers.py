"""A float TFLite file as layers: convolutions, sums, and PReLUs.

A PReLU is written as relu(x) + a (x - |x|), with a = slope / 2.
"""

from swaptalk_jax.pretrained.formats import tflite_file
from swaptalk_jax.pretrained.layers import Layer, Layers, Weights, unknown


def read(path):
    """Layers of a TFLite file. Raises CheckpointError, one line, for other files."""
    graph = tflite_file.read_graph(path)
    constants, names, layers = Weights(path, graph.tensors), {}, []
    parts = {}  # output -> (what it is of a PReLU, of which tensor)
    for node in graph.nodes:
        inputs = tuple(names.get(name, name) for name in node.inputs)
        image = tuple(name for name in inputs if name not in constants)
        weights = [constants.take(name) for name in inputs if name in constants]
        output, pieces = node.outputs[0], [parts.get(name, (None, None)) for name in image]
        if node.op == "RESHAPE":
            names[output] = inputs[0]
        elif node.op in ("CONV_2D", "DEPTHWISE_CONV_2D") and not node.attributes["activation"]:
            order = (1, 2, 3, 0) if node.op == "CONV_2D" else (1, 2, 0, 3)
            values = {
                "kernel": weights[0].transpose(order),
                "bias": weights[1],
                "stride": node.attributes["strides"][0],
            }
            layers.append(Layer("conv", image, output, values))
        elif node.op in ("RELU", "ABS"):
            parts[output] = (node.op, image[0])
        elif node.op == "SUB" and pieces[1] == ("ABS", image[0]):
            parts[output] = ("twice the negative", image[0])
        elif node.op == "MUL" and pieces[0][0] == "twice the negative":
            parts[output] = (weights[0], pieces[0][1])
        elif node.op == "ADD" and pieces[0][0] == "RELU" and pieces[0][1] == pieces[1][1]:
            values = {"slope": 2 * pieces[1][0].reshape(-1)}
            layers.append(Layer("prelu", (pieces[0][1],), output, values))
        elif node.op == "ADD" and len(image) == 2:
            layers.append(Layer("add", image, output, {}))
        else:
            raise unknown(path, node)
    return Layers(path, graph, layers)

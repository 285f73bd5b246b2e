"""ONNX files of random weights that look as public exports of face recognisers do."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


class Export:
    """Nodes and constants of a file in the making; `at` is the newest tensor."""

    def __init__(self, size, seed=0, int8=False):
        self.rng, self.int8 = np.random.default_rng(seed), int8
        self.nodes, self.constants, self.at = [], [], "data"
        self.first, self.names = [], 0
        self.input = helper.make_tensor_value_info(
            "data", TensorProto.FLOAT, ["batch", 3, size, size]
        )

    def constant(self, value):
        """Name of a new constant."""
        self.names += 1
        self.constants.append(numpy_helper.from_array(np.asarray(value), f"c{self.names}"))
        return f"c{self.names}"

    def random(self, *shape, around=0.0, by=0.3):
        """Random float32."""
        return self.rng.normal(around, by, shape).astype(np.float32)

    def weight(self, *shape):
        """Name of a random weight; where int8 is set, in blocks of 8 behind DequantizeLinear."""
        value = self.random(*shape, by=np.prod(shape[1:]) ** -0.5)  # bounded over 100 layers
        if not self.int8:
            return self.constant(value)
        flat = value.reshape(shape[0], -1)
        starts = np.arange(0, flat.shape[1], 8)
        scale = np.maximum.reduceat(abs(flat), starts, axis=1).astype(np.float32) / 100
        zero = self.rng.integers(-9, 9, scale.shape).astype(np.int8)
        wide = [np.repeat(v, 8, axis=1)[:, : flat.shape[1]] for v in (scale, zero)]
        quantised = np.rint(flat / wide[0] + wide[1]).astype(np.int8)
        names = [self.constant(v) for v in (quantised, scale, zero)]
        made = f"q{self.names}"
        dequantize = helper.make_node(
            "DequantizeLinear", names, [made], f"n_{made}", axis=1, block_size=8
        )
        reshape = helper.make_node(
            "Reshape", [made, self.constant(np.array(shape))], [f"{made}_shaped"]
        )
        self.first += [dequantize, reshape]
        return f"{made}_shaped"

    def node(self, op, *others, at=None, **attributes):
        """Adds an operation on `at` (default: the newest tensor) and constants."""
        self.names += 1
        output = f"t{self.names}"
        inputs = [at or self.at, *others]
        self.nodes.append(helper.make_node(op, inputs, [output], f"{op}_{output}", **attributes))
        self.at = output
        return output

    def conv(self, into, out, size=3, stride=1, groups=1, bias=False, at=None):
        """A convolution as both exporters write it."""
        others = [self.weight(out, into // groups, size, size)]
        if bias:
            others.append(self.constant(self.random(out)))
        pad = size // 2
        return self.node(
            "Conv", *others, at=at, strides=[stride] * 2, pads=[pad] * 4, group=groups,
            kernel_shape=[size] * 2, dilations=[1, 1],
        )  # fmt: skip

    def norm(self, width, epsilon=1e-5):
        """A BatchNormalization with statistics far from 0 and 1."""
        gamma, var = (abs(self.random(width, around=mean)) + 0.1 for mean in (0.8, 1.5))
        beta, mean = self.random(width), self.random(width)
        return self.node(
            "BatchNormalization", *map(self.constant, (gamma, beta, mean, var)), epsilon=epsilon
        )

    def prelu(self, width):
        """A slope a channel."""
        return self.node("PRelu", self.constant(abs(self.random(width, 1, 1))))

    def pixels(self):
        """(x - 127.5) / 128 inside of the graph."""
        self.node("Sub", self.constant(np.float32([127.5])))
        self.node("Mul", self.constant(np.float32([1 / 128])))

    def save(self, path, embed_dim):
        """Writes the file, the newest tensor as its output."""
        output = helper.make_tensor_value_info(self.at, TensorProto.FLOAT, ["batch", embed_dim])
        graph = helper.make_graph(
            self.first + self.nodes, "net", [self.input], [output], self.constants
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
        onnx.checker.check_model(model)
        onnx.save(model, path)


def iresnet(path, stages=(2, 1), width=4, size=16, embed_dim=8, folded=True, seed=0):
    """insightface's export of ArcFace's iResNet.

    folded: as torch writes it, BatchNorms behind convolutions folded into them, pixels scaled
    outside. Else as MXNet's older files: every BatchNorm, and the scaling of pixels, in the graph.
    """
    net = Export(size, seed)
    if not folded:
        net.pixels()

    def conv(into, out, size=3, stride=1, at=None):
        made = net.conv(into, out, size, stride, bias=folded, at=at)
        return made if folded else net.norm(out, epsilon=2e-5)

    conv(3, width)
    net.prelu(width)
    last = width
    for stage, units in enumerate(stages):
        out = width * 2**stage
        for unit in range(units):
            start, stride = net.at, 2 if unit == 0 else 1
            net.norm(last)
            conv(last, out)
            net.prelu(out)
            end = conv(out, out, stride=stride)
            if stride == 2:
                start = conv(last, out, 1, 2, at=start)
            net.at = end
            net.node("Add", start)
            last = out
    net.norm(last)
    if not folded:
        net.node("Dropout")
    net.node("Flatten", axis=1)
    _embedding(net, last * (size // 2 ** len(stages)) ** 2, embed_dim)
    net.save(path, embed_dim)


def sface(path, blocks=((8, 1), (12, 2), (12, 1)), stem=4, size=12, embed_dim=8, int8=True):
    """OpenCV's file of SFace: all in the graph, weights in int8 blocks."""
    net = Export(size, int8=int8)
    net.pixels()
    last = stem
    net.conv(3, last)
    net.norm(last, 1e-3)
    net.prelu(last)
    for width, stride in blocks:
        net.conv(last, last, stride=stride, groups=last)
        net.norm(last, 1e-3)
        net.prelu(last)
        net.conv(last, width, 1)
        net.norm(width, 1e-3)
        net.prelu(width)
        last, size = width, size // stride
    net.norm(last, 2e-5)
    net.node("Dropout")
    net.node("Flatten", axis=1)
    _embedding(net, last * size**2, embed_dim)
    net.save(path, embed_dim)


def _embedding(net, width, embed_dim):
    net.node("Gemm", net.weight(embed_dim, width), net.constant(net.random(embed_dim)), transB=1)
    net.norm(embed_dim)

"""Public recognisers beside onnxruntime and LiteRT, and the golden of the regular test.

    python -m tests.parity.recognisers [sface.onnx] [MobileFaceNet.tflite]

Random weights of the true shapes (ArcFace R50, R100, SFace, MobileFaceNet), and real weights where
their files are named. Rewrites tests/golden/mobilefacenet.npz: a small random TFLite file, an input
and LiteRT's output for it. Needs the extra `parity`, ai-edge-litert and tflite.
"""

import pathlib
import sys
import tempfile

import flatbuffers
import jax
import numpy as np
import onnx
import onnxruntime
import tflite
from ai_edge_litert.interpreter import Interpreter

from swaptalk_jax.models import registry
from swaptalk_jax.pretrained import arcface, mobilefacenet, sface
from tests import random_onnx

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "mobilefacenet.npz"
SMALL = dict(blocks=((8, 6, 2), (8, 6, 1), (6, 6, 1)), stem=6, features=8, embed_dim=5, size=16)


def normalised(x):
    """[b e] -> of length 1."""
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def of_onnx(path, x):
    """onnxruntime's embeddings of x [b h w 3] as the graph wants its pixels."""
    model = onnx.load(path)
    constants = {c.name for c in model.graph.initializer}
    read = {name for node in model.graph.node for name in node.input} - constants
    for stale in [i for i in model.graph.input if i.name not in read]:
        model.graph.input.remove(stale)  # SFace's file lists inputs that nothing reads
    session = onnxruntime.InferenceSession(model.SerializeToString())
    name = session.get_inputs()[0].name
    rows = [session.run(None, {name: row[None].transpose(0, 3, 1, 2)})[0] for row in x]
    return normalised(np.concatenate(rows))


def of_tflite(path, x):
    """LiteRT's embeddings of x [2 h w 3] in the file's own range."""
    interpreter = Interpreter(str(path), num_threads=1)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    return normalised(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]))


def compare(title, importer, path, other, pixels=lambda x: x):
    """Prints the relative error; x are our pixels, in [-1, 1], the whole image cut out."""
    params, fields = importer.read(path)
    fields["box"] = (0, 0, 1, 1)
    model = registry.build("recogniser", fields, importer.NETWORKS[0].module)
    shape = (2, fields["input_size"], fields["input_size"], 3)
    x = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
    theirs = other(path, np.float32(pixels(x)))
    ours = np.asarray(jax.jit(model.apply)({"params": params}, x))
    error = abs(ours - theirs).max() / abs(theirs).max()
    print(f"{title}: relative error {error:.1e}, {fields}"[:160], flush=True)
    return x, theirs, error


class TFLite:
    """A TFLite file in the making (schema.fbs, by the tflite package's builders)."""

    CODES = ("ADD", "CONV_2D", "DEPTHWISE_CONV_2D", "MUL", "RELU", "RESHAPE", "SUB", "ABS")

    def __init__(self, seed=0):
        self.b, self.rng = flatbuffers.Builder(1 << 16), np.random.default_rng(seed)
        self.buffers, self.tensors, self.operators = [self._buffer(None)], [], []

    def _buffer(self, data):
        place = None if data is None else self.b.CreateByteVector(data)
        tflite.BufferStart(self.b)
        if place is not None:
            tflite.BufferAddData(self.b, place)
        return tflite.BufferEnd(self.b)

    def _vector(self, values):
        return self.b.CreateNumpyVector(np.asarray(values, np.int32))

    def tensor(self, shape, data=None):
        """Index of a new tensor."""
        buffer = 0
        if data is not None:
            buffer = len(self.buffers)
            self.buffers.append(self._buffer(data.tobytes()))
        name, shape = self.b.CreateString(f"t{len(self.tensors)}"), self._vector(shape)
        tflite.TensorStart(self.b)
        tflite.TensorAddShape(self.b, shape)
        is_int = data is not None and data.dtype == np.int32
        tflite.TensorAddType(
            self.b, tflite.TensorType.INT32 if is_int else tflite.TensorType.FLOAT32
        )
        tflite.TensorAddBuffer(self.b, buffer)
        tflite.TensorAddName(self.b, name)
        self.tensors.append(tflite.TensorEnd(self.b))
        return len(self.tensors) - 1

    def random(self, *shape, by):
        """Index of a random constant."""
        return self.tensor(shape, self.rng.normal(0, by, shape).astype(np.float32))

    def operate(self, op, inputs, shape, options=None, kind=0):
        """Adds an operation; the index of its output."""
        output = self.tensor(shape)
        read, made = self._vector(inputs), self._vector([output])
        tflite.OperatorStart(self.b)
        tflite.OperatorAddOpcodeIndex(self.b, self.CODES.index(op))
        tflite.OperatorAddInputs(self.b, read)
        tflite.OperatorAddOutputs(self.b, made)
        if options is not None:
            tflite.OperatorAddBuiltinOptionsType(self.b, kind)
            tflite.OperatorAddBuiltinOptions(self.b, options)
        self.operators.append(tflite.OperatorEnd(self.b))
        return output

    def conv(self, x, into, out, side, size=1, stride=1, depthwise=False, valid=False):
        """A convolution with bias; side is its output's."""
        shape = (1, size, size, into) if depthwise else (out, size, size, into)
        spread = (2 / (size * size * (1 if depthwise else into))) ** 0.5
        weights, bias = self.random(*shape, by=spread), self.random(out, by=0.2)
        name = "DepthwiseConv2DOptions" if depthwise else "Conv2DOptions"
        call = {
            key: getattr(tflite, f"{name}{key}")
            for key in ("Start", "AddPadding", "AddStrideW", "AddStrideH", "End")
        }
        call["Start"](self.b)
        call["AddPadding"](self.b, int(valid))
        call["AddStrideW"](self.b, stride)
        call["AddStrideH"](self.b, stride)
        if depthwise:
            tflite.DepthwiseConv2DOptionsAddDepthMultiplier(self.b, 1)
        options = call["End"](self.b)
        kind = getattr(tflite.BuiltinOptions, name)
        op = "DEPTHWISE_CONV_2D" if depthwise else "CONV_2D"
        return self.operate(op, [x, weights, bias], (2, side, side, out), options, kind)

    def prelu(self, x, width, side):
        """relu(x) + a (x - |x|), as TensorFlow 1 wrote it."""
        shape = (2, side, side, width)
        positive, size = self.operate("RELU", [x], shape), self.operate("ABS", [x], shape)
        negative = self.operate("SUB", [x, size], shape)
        slope = self.random(width, by=0.2)
        return self.operate("ADD", [positive, self.operate("MUL", [slope, negative], shape)], shape)

    def _tables(self, places):
        self.b.StartVector(4, len(places), 4)
        for place in reversed(places):
            self.b.PrependUOffsetTRelative(place)
        return self.b.EndVector()

    def save(self, path, first, last):
        """Writes the file, `first` and `last` its input and output."""
        tables = self._tables(self.tensors), self._tables(self.operators)
        inputs, outputs = self._vector([first]), self._vector([last])
        tflite.SubGraphStart(self.b)
        tflite.SubGraphAddTensors(self.b, tables[0])
        tflite.SubGraphAddInputs(self.b, inputs)
        tflite.SubGraphAddOutputs(self.b, outputs)
        tflite.SubGraphAddOperators(self.b, tables[1])
        graph, codes = tflite.SubGraphEnd(self.b), []
        for name in self.CODES:
            code = getattr(tflite.BuiltinOperator, name)
            tflite.OperatorCodeStart(self.b)
            tflite.OperatorCodeAddDeprecatedBuiltinCode(self.b, code)
            tflite.OperatorCodeAddBuiltinCode(self.b, code)
            tflite.OperatorCodeAddVersion(self.b, 1)
            codes.append(tflite.OperatorCodeEnd(self.b))
        parts = self._tables(codes), self._tables([graph]), self._tables(self.buffers)
        tflite.ModelStart(self.b)
        tflite.ModelAddVersion(self.b, 3)
        tflite.ModelAddOperatorCodes(self.b, parts[0])
        tflite.ModelAddSubgraphs(self.b, parts[1])
        tflite.ModelAddBuffers(self.b, parts[2])
        self.b.Finish(tflite.ModelEnd(self.b), b"TFL3")
        pathlib.Path(path).write_bytes(self.b.Output())


def random_mobilefacenet(path, blocks, stem, features, embed_dim, size, seed=0):
    """A random TFLite file that looks as the public MobileFaceNet."""
    net, side = TFLite(seed), size // 2
    first = net.tensor((2, size, size, 3))
    x = net.prelu(net.conv(first, 3, stem, side, 3, 2), stem, side)
    x = net.prelu(net.conv(x, stem, stem, side, 3, depthwise=True), stem, side)
    x, last = net.conv(x, stem, stem, side), stem
    for width, out, stride in blocks:
        start, x = x, net.prelu(net.conv(x, last, width, side), width, side)
        side //= stride
        x = net.conv(x, width, width, side, 3, stride, depthwise=True)
        x = net.conv(net.prelu(x, width, side), width, out, side)
        if stride == 1 and last == out:
            x = net.operate("ADD", [x, start], (2, side, side, out))
        last = out
    x = net.prelu(net.conv(x, last, features, side), features, side)
    x = net.conv(x, features, features, 1, side, depthwise=True, valid=True)
    x = net.conv(net.conv(x, features, features, 1), features, embed_dim, 1)
    shape = net.tensor((2,), np.array([2, embed_dim], np.int32))
    net.save(path, first, net.operate("RESHAPE", [x, shape], (2, embed_dim)))


def main():
    """Prints every comparison; ends with an error where one is above 1e-4."""
    real, errors = [pathlib.Path(name) for name in sys.argv[1:]], []
    to_bytes, to_tflite = (lambda x: x * 127.5 + 127.5), (lambda x: x * 127.5 / 128)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "random")
        random_mobilefacenet(path, **SMALL)
        x, theirs, error = compare(
            "MobileFaceNet, small", mobilefacenet, path, of_tflite, to_tflite
        )
        data = np.frombuffer(path.read_bytes(), np.uint8)
        np.savez_compressed(GOLDEN, tflite=data, image=x, embedding=theirs)
        errors.append(error)
        blocks = mobilefacenet.MobileFaceNet.blocks  # the true numbers are the modules' defaults
        random_mobilefacenet(path, blocks, stem=64, features=512, embed_dim=192, size=112)
        errors.append(compare("MobileFaceNet", mobilefacenet, path, of_tflite, to_tflite)[2])
        random_onnx.sface(path, sface.SFace.blocks, 32, size=112, embed_dim=128)
        errors.append(compare("SFace", sface, path, of_onnx, to_bytes)[2])
        for name, stages in (("R50", (3, 4, 14, 3)), ("R100", (3, 13, 30, 3))):
            for folded in (True, False):
                random_onnx.iresnet(path, stages, 64, 112, 512, folded)
                pixels = (lambda x: x) if folded else to_bytes
                title = f"ArcFace {name}, {'folded' if folded else 'not folded'}"
                errors.append(compare(title, arcface, path, of_onnx, pixels)[2])
    for path in real:
        if path.suffix == ".tflite":
            errors.append(compare(path.name, mobilefacenet, path, of_tflite, to_tflite)[2])
        else:
            errors.append(compare(path.name, sface, path, of_onnx, to_bytes)[2])
    if not all(error <= 1e-4 for error in errors):  # so that NaN fails too
        raise SystemExit("a relative error is above 1e-4")


if __name__ == "__main__":
    main()

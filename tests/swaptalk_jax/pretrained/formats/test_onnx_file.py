"""The reader of ONNX files, on files that are whole, cut, hostile or huge."""

import subprocess
import sys

import numpy as np
import pytest

from swaptalk_jax.errors import CheckpointError
from swaptalk_jax.pretrained.formats import graph as graphs
from swaptalk_jax.pretrained.formats.onnx_file import LARGEST, read_graph

onnx = pytest.importorskip("onnx", reason="onnx is in the extra `test`")


def model(*tensors, nodes=1, **attributes):
    """A model that multiplies its input by "w", as often as it has nodes."""
    made = [
        onnx.helper.make_node("MatMul", ["x", "w"], [f"y{i}"], **attributes) for i in range(nodes)
    ]
    info = [onnx.helper.make_tensor_value_info(name, 1, [2, 2]) for name in ("x", "y0")]
    graph = onnx.helper.make_graph(made, "g", info[:1], info[1:], list(tensors))
    return onnx.helper.make_model(graph)


def weight(values=((1, 2), (3, 4)), dtype=np.float32):
    return onnx.numpy_helper.from_array(np.array(values, dtype), "w")


def refused(path):
    """The line of the error that reading a file ends in."""
    with pytest.raises(CheckpointError) as error:
        read_graph(path)
    assert str(error.value).isprintable() and str(path) in str(error.value)
    return str(error.value)


def test_constants_and_attributes_are_read_in_the_files_order(tmp_path):
    value = onnx.numpy_helper.from_array(np.float16([1.5]), "v")
    made = model(
        weight(dtype=np.int8), floats=[0.5, 2.0], ints=[3, 4], text="SAME", one=7, f=0.25, t=value
    )
    made.graph.node.insert(0, onnx.helper.make_node("Constant", [], ["c"], value=value))
    made.graph.input.append(onnx.helper.make_tensor_value_info("w", 1, [2, 2]))  # as old files do
    onnx.save(made, tmp_path / "m")
    graph = read_graph(tmp_path / "m")
    assert graph.inputs == ("x",) and [node.op for node in graph.nodes] == ["MatMul"]
    assert graph.tensors["w"].dtype == np.int8 and graph.tensors["w"].tolist() == [[1, 2], [3, 4]]
    assert graph.tensors["c"].tolist() == [1.5]
    attributes = dict(graph.nodes[0].attributes)
    assert attributes.pop("t").tolist() == [1.5]
    assert attributes == {"floats": [0.5, 2.0], "ints": [3, 4], "text": "SAME", "one": 7, "f": 0.25}


@pytest.mark.parametrize("location", ["weights", "../../etc/passwd", "/etc/passwd"])
def test_no_other_file_is_opened_for_the_weights(tmp_path, location):
    outside, attribute = weight(), weight()
    for tensor in (outside, attribute):
        onnx.external_data_helper.set_external_data(tensor, location, 0, 16)
        tensor.data_location = onnx.TensorProto.EXTERNAL
    for made in (model(outside), model(weight(), t=attribute)):
        for tensor in (outside, attribute):
            tensor.ClearField("raw_data")
        (tmp_path / "m").write_bytes(made.SerializeToString())
        assert "keeps its weights in another file (w)" in refused(tmp_path / "m")


def test_every_cut_is_one_line_or_a_graph(exports, tmp_path):
    whole = exports["int8"][1].read_bytes()
    assert len(read_graph(exports["int8"][1]).nodes) > 20
    path, rng = tmp_path / "cut", np.random.default_rng(5)
    for end in (0, 1, 2, 9, *rng.integers(10, len(whole), 60), len(whole) - 30):
        path.write_bytes(whole[:end])
        assert "not a whole ONNX file" in refused(path)
    for _ in range(100):
        damaged = bytearray(whole)
        for at in rng.integers(0, len(whole), 5):
            damaged[at] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            assert isinstance(read_graph(path), graphs.Graph)
        except CheckpointError as error:
            assert str(error).isprintable()


def test_tensors_of_the_wrong_size_or_type_and_huge_files_are_refused(tmp_path):
    path = tmp_path / "m"
    for shape in ([3, 3], [2**40, 2**40], [-1, 7], [2**62]):
        tensor = weight()
        tensor.dims[:] = shape
        path.write_bytes(model(tensor).SerializeToString())
        assert "not a whole ONNX file" in refused(path)
    tensor = weight()
    tensor.data_type = 999
    path.write_bytes(model(tensor).SerializeToString())
    assert "not a whole ONNX file" in refused(path)
    path.write_bytes(model(weight(), nodes=graphs.NODES + 1).SerializeToString())
    assert "10001 operations and 1 tensors are too many" in refused(path)
    with path.open("wb") as file:
        file.truncate(LARGEST + 1)
    assert "too large for what is read here as ONNX file" in refused(path)


@pytest.mark.parametrize("kind, library", [("onnx_file", "onnx"), ("tflite_file", "tflite")])
def test_without_its_library_one_line_names_the_extra(tmp_path, kind, library):
    script = (
        f"import sys; sys.modules[{library!r}] = None\n"
        f"from swaptalk_jax.pretrained.formats import {kind}\n"
        f"try: {kind}.read_graph('x')\n"
        "except ValueError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert f"needs the library {library}: pip install -e '.[pretrained]'" in done.stdout
    assert done.stdout.count("\n") == 1

"""The reader of TFLite files, on files that are whole, cut, hostile or huge."""

import numpy as np
import pytest

from swaptalk_jax.errors import CheckpointError
from swaptalk_jax.pretrained.formats.graph import Graph
from swaptalk_jax.pretrained.formats.tflite_file import LARGEST, read_graph


def refused(path):
    """The line of the error that reading a file ends in."""
    with pytest.raises(CheckpointError) as error:
        read_graph(path)
    assert str(error.value).isprintable() and str(path) in str(error.value)
    return str(error.value)


def test_operations_have_their_names_and_convolutions_their_strides(tiny_tflite):
    graph = read_graph(tiny_tflite)
    names = {node.op for node in graph.nodes}
    assert {"CONV_2D", "DEPTHWISE_CONV_2D", "RELU", "ABS", "SUB", "MUL", "ADD"} <= names
    first = next(node for node in graph.nodes if node.op == "CONV_2D")
    assert first.inputs[0] == graph.inputs[0] and first.attributes["strides"] == [2, 2]
    assert first.attributes["padding"] == "SAME" and first.attributes["activation"] == 0
    kernel = graph.tensors[first.inputs[1]]
    assert kernel.dtype == np.float32 and kernel.shape[1:] == (3, 3, 3)


def test_every_cut_is_one_line_or_a_graph(tiny_tflite, tmp_path):
    whole = tiny_tflite.read_bytes()
    path, rng = tmp_path / "cut", np.random.default_rng(5)
    for end in (0, 1, 5, 8, 12, *rng.integers(10, len(whole) // 2, 40)):
        path.write_bytes(whole[:end])
        assert "not a whole TFLite file" in refused(path)
    for trial in range(300):
        damaged = bytearray(whole[: None if trial % 2 else rng.integers(8, len(whole))])
        for at in rng.integers(8, min(len(damaged), 4000 if trial % 3 else len(damaged)), 5):
            damaged[at] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            assert isinstance(read_graph(path), Graph)
        except CheckpointError as error:
            assert str(error).isprintable()


def test_other_and_huge_files_are_refused(tmp_path):
    path = tmp_path / "m"
    for data in (b"hello" * 99, b"\0\0\0\0TFL3", b"\xff\xff\xff\xffTFL3" + bytes(99)):
        path.write_bytes(data)
        assert "not a whole TFLite file" in refused(path)
    with path.open("wb") as file:
        file.truncate(LARGEST + 1)
    assert "too large for what is read here as TFLite file" in refused(path)

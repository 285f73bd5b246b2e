"""Files whose layers are not those of a network that is imported."""

import numpy as np
import pytest

from swaptalk_jax import errors
from swaptalk_jax.pretrained import arcface, layers, mobilefacenet, onnx_layers, sface


def test_wrong_files_are_refused_in_one_line(exports, tiny_tflite, tmp_path):
    whole = exports["folded"][1].read_bytes()
    for name, data in {
        "cut": whole[: len(whole) // 2],
        "text": b"hello" * 99,
        "empty": b"",
    }.items():
        (tmp_path / name).write_bytes(data)
        for importer in (arcface, sface, mobilefacenet):
            with pytest.raises(errors.CheckpointError, match=f"{name}: not a whole") as error:
                importer.read(tmp_path / name)
            assert "\n" not in str(error.value)
    with pytest.raises(errors.CheckpointError, match="not the network that this importer"):
        arcface.read(exports["int8"][1])
    with pytest.raises(errors.CheckpointError, match="not the network that this importer"):
        sface.read(exports["folded"][1])
    with pytest.raises(errors.CheckpointError, match="not a whole ONNX file"):
        arcface.read(tiny_tflite)
    with pytest.raises(errors.CheckpointError, match="none: cannot be read"):
        arcface.read(tmp_path / "none")


def written(path, nodes, **constants):
    """An ONNX file of nodes (operation, inputs, output, attributes) that reads "data"."""
    onnx = pytest.importorskip("onnx", reason="onnx is in the extra `test`")
    helper = onnx.helper
    made = [helper.make_node(op, list(ins), [out], **more) for op, ins, out, more in nodes]
    info = [helper.make_tensor_value_info(name, 1, [1]) for name in ("data", nodes[-1][2])]
    tensors = [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()]
    onnx.save(helper.make_model(helper.make_graph(made, "g", info[:1], info[1:], tensors)), path)
    return path


KERNEL = np.zeros((4, 3, 3, 3), np.float32)
CONV = {"pads": [1, 1, 1, 1], "strides": [1, 1]}


def test_layers_that_go_in_a_circle_are_refused(tmp_path):
    nodes = [
        ("Conv", ("data", "k"), "a", CONV),
        ("PRelu", ("a", "slope"), "data", {}),
    ]
    path = written(tmp_path / "m", nodes, k=KERNEL, slope=np.ones(4, np.float32))
    with pytest.raises(errors.CheckpointError, match="its layers go in a circle"):
        sface.read(path)


def test_a_constant_in_all_layers_does_not_fill_the_memory(tmp_path, monkeypatch):
    nodes = [("Conv", (f"t{i}", "k"), f"t{i + 1}", CONV) for i in range(50)]
    path = written(tmp_path / "m", nodes, k=KERNEL)
    assert len(onnx_layers.read(path).layers) == 50
    monkeypatch.setattr(layers, "VALUES", 50 * KERNEL.size - 1)
    with pytest.raises(errors.CheckpointError, match="more than any network"):
        onnx_layers.read(path)


@pytest.mark.parametrize(
    "scale, attributes",
    [
        (np.ones((4, 1), np.float32), {"block_size": 2**40, "axis": 1}),
        (np.ones((4, 2), np.float32), {"block_size": 2**40, "axis": 1}),
        (np.ones((4, 1), np.float32), {"block_size": 0, "axis": 1}),
        (np.ones((4, 3), np.float32), {"block_size": 2, "axis": 1}),
        (np.ones((1000, 4), np.float32), {"block_size": 2, "axis": 1}),
        (np.ones(1000, np.float32), {"axis": 1}),
    ],
)
def test_scales_that_do_not_fit_their_weights_are_refused(tmp_path, scale, attributes):
    nodes = [
        ("DequantizeLinear", ("q", "scale"), "w", attributes),
        ("MatMul", ("data", "w"), "out", {}),
    ]
    path = written(tmp_path / "m", nodes, q=np.ones((4, 1), np.int8), scale=scale)
    if scale.shape == (4, 1) and attributes["block_size"]:  # one block, however long
        assert onnx_layers.read(path).take("dense").values["kernel"].shape == (4, 1)
        return
    with pytest.raises(errors.CheckpointError, match="DequantizeLinear at w is no part"):
        onnx_layers.read(path)


def test_a_norm_that_would_widen_the_layer_before_it_is_refused(tmp_path):
    norm = [np.ones(99, np.float32)] * 4
    nodes = [
        ("Conv", ("data", "k"), "a", CONV),
        ("BatchNormalization", ("a", "g", "b", "m", "v"), "out", {}),
    ]
    narrow = np.zeros((1, 3, 3, 3), np.float32)
    path = written(tmp_path / "m", nodes, k=narrow, **dict(zip("gbmv", norm, strict=True)))
    with pytest.raises(errors.CheckpointError, match="a norm does not fit the layer before it"):
        onnx_layers.read(path)

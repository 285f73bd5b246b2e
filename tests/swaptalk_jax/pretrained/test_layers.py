"""Files whose layers are not those of a network that is imported."""

import pytest

from swaptalk_jax import errors
from swaptalk_jax.pretrained import arcface, mobilefacenet, sface


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

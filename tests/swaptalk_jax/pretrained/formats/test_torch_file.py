"""The reader of torch files, on files made by hand: torch itself is not needed to read them.

tests/parity/images.py compares it with torch on files that torch wrote.
"""

import io
import pickle
import zipfile

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save
from torch_files import VALUES, legacy, mapping, tensor, zipped

from swaptalk_jax.errors import CheckpointError
from swaptalk_jax.pretrained.formats.torch_file import read_tensors


def test_a_tensor_is_the_view_of_its_storage_that_the_file_says(tmp_path):
    content = mapping(
        whole=tensor((3, 4), (4, 1)),
        transposed=tensor((4, 3), (1, 4)),
        part=tensor((2, 2), (4, 2), offset=5),
        scalar=tensor((), (), offset=7),
        empty=tensor((0, 4), (4, 1)),
        repeated=tensor((2, 3), (0, 1)),
    )
    tensors = read_tensors(zipped(tmp_path, content))
    whole = VALUES.reshape(3, 4)
    assert list(tensors) == ["whole", "transposed", "part", "scalar", "empty", "repeated"]
    np.testing.assert_array_equal(tensors["whole"], whole)
    np.testing.assert_array_equal(tensors["transposed"], whole.T)
    np.testing.assert_array_equal(tensors["part"], [[5, 7], [9, 11]])
    assert tensors["scalar"].shape == () and tensors["scalar"] == 7
    assert tensors["empty"].shape == (0, 4)
    np.testing.assert_array_equal(tensors["repeated"], [[0, 1, 2], [0, 1, 2]])


@pytest.mark.parametrize(
    "kind, dtype",
    [
        ("HalfStorage", np.float16),
        ("BFloat16Storage", ml_dtypes.bfloat16),
        ("DoubleStorage", np.float64),
        ("LongStorage", np.int64),
        ("CharStorage", np.int8),
        ("BoolStorage", np.bool_),
    ],
)
def test_dtypes_are_kept_but_brain_floats_widen(tmp_path, kind, dtype):
    values = np.array([1.5, 0, -3]).astype(dtype)
    content = mapping(x=tensor((3,), (1,), kind=kind.encode(), count=3))
    x = read_tensors(zipped(tmp_path, content, values.tobytes()))["x"]
    assert x.dtype == (np.float32 if dtype == ml_dtypes.bfloat16 else dtype)
    np.testing.assert_array_equal(x, values.astype(x.dtype))


def test_names_of_nested_containers_are_joined_and_what_is_no_tensor_is_left_out(tmp_path):
    x = tensor((2,), (1,))
    parameter = b"ctorch._utils\n_rebuild_parameter\n(" + x + b"I01\n)tR"
    content = mapping(
        epoch=b"I7\n",
        state_dict=mapping(**{"encoder.weight": parameter}),
        optimizer=mapping(state=b"(I0\n" + mapping(exp_avg=x) + b"d"),
        pair=b"(" + x + x + b"t",
        callbacks=b"clightning.callbacks\nEarlyStopping\n)\x81}(Vwait\nI3\nub",
    )
    tensors = read_tensors(zipped(tmp_path, content))
    names = ["state_dict/encoder.weight", "optimizer/state/0/exp_avg", "pair/0", "pair/1"]
    assert list(tensors) == names


def test_the_format_before_torch_1_6_is_read_too(tmp_path):
    path = tmp_path / "x.pth"
    path.write_bytes(legacy(mapping(w=tensor((4, 3), (1, 4)))))
    np.testing.assert_array_equal(read_tensors(path)["w"], VALUES.reshape(3, 4).T)


def test_safetensors_come_through_the_same_door_whatever_the_name(tmp_path):
    tensors = {"a": VALUES.reshape(3, 4), "b": np.array([1, 2], np.uint8)}
    path = tmp_path / "x.pth"
    path.write_bytes(save(tensors, {"format": "pt"}))
    found = read_tensors(path)
    assert found.keys() == tensors.keys()
    for name in tensors:
        np.testing.assert_array_equal(found[name], tensors[name])
    brain = np.array([1.5, -2], ml_dtypes.bfloat16)
    header = b'{"x":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}}'
    path.write_bytes(len(header).to_bytes(8, "little") + header + brain.tobytes())
    x = read_tensors(path)["x"]
    assert x.dtype == np.float32 and x.tolist() == [1.5, -2]


LAUGHS = b"]" + b"q\x00" + b"](h\x00h\x00eq\x00" * 60  # 2^60 empty lists


@pytest.mark.parametrize(
    "content, complaint",
    [
        (mapping(x=tensor((3, 5), (4, 1))), "x reaches beyond its storage"),
        (mapping(x=tensor((2,), (1,), offset=11)), "x reaches beyond its storage"),
        (mapping(x=tensor((2**62, 1), (1, 1))), "x reaches beyond its storage"),
        (mapping(x=tensor((10**30, 2), (1, 1))), "not a whole"),
        (mapping(x=tensor((2,), (-1,), offset=11)), "not a whole"),
        (mapping(x=tensor((2, 2), (1,))), "not a whole"),
        (mapping(x=tensor((0, 10**30), (1, 1))), "not a whole"),
        (mapping(x=tensor((2,), (1,), count=13)), "storage 0 is not of its stated size"),
        (mapping(x=tensor((2,), (1,), key=b"7")), "not a whole"),
        (mapping(x=tensor((2,), (1,), key=b"../../version")), "not a whole"),
        (mapping(x=tensor((2,), (1,)), y=tensor((2,), (1,), kind=b"IntStorage")), "named 0"),
        (mapping(x=tensor((2,), (1,), kind=b"QInt8Storage")), "no tensors"),
        (mapping(), "no tensors"),
        (b"I3\n", "no tensors"),
        (b"", "not a whole"),
        (b"h\x05", "not a whole"),
        (b"(Va\nd", "not a whole"),
        (b"]q\x00h\x00a", "nested"),
        (LAUGHS, "nested"),
        (b"(" * 100_000 + b"t" * 100_000, "nested"),
    ],
)
def test_a_file_that_makes_no_sense_is_one_clear_line(tmp_path, content, complaint):
    with pytest.raises(CheckpointError, match=complaint) as error:
        read_tensors(zipped(tmp_path, content))
    assert "x.pth" in str(error.value) and "\n" not in str(error.value)


def test_other_files_are_told_apart(tmp_path):
    path = tmp_path / "x.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme", b"hello")
    complaints = {path.read_bytes(): "not one of torch.save"}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", mapping() + b".")
    complaints |= {
        buffer.getvalue(): "compressed",
        pickle.dumps({"a": 1}): "not one of torch.save",
        b"<!doctype html>": "neither",
        b"": "neither",
        legacy(mapping(x=tensor((2,), (1,))), {"little_endian": False}): "big-endian",
        legacy(mapping(x=tensor((2,), (1,))), count=5): "stated size",
        legacy(mapping(x=tensor((2,), (1,))), keys=("1",)): "not a whole",
    }
    for content, complaint in complaints.items():
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=complaint):
            read_tensors(path)
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_tensors(tmp_path / "absent.pth")
    with pytest.raises(CheckpointError, match="big-endian"):
        read_tensors(zipped(tmp_path, mapping(x=tensor((2,), (1,))), byteorder=b"big"))


@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
def test_no_damage_ends_in_anything_but_a_clear_line_or_arrays(tmp_path, form):
    content = mapping(x=tensor((3, 4), (4, 1)), y=mapping(z=tensor((4,), (3,))))
    path = zipped(tmp_path, content)
    whole = {
        "zip": path.read_bytes(),
        "legacy": legacy(content),
        "safetensors": save({"x": VALUES}),
    }[form]
    rng = np.random.default_rng(0)
    for trial in range(400):
        damaged = bytearray(whole)
        for place in rng.integers(0, len(whole), rng.integers(1, 4)):
            damaged[place] = rng.integers(256)
        if trial % 4 == 0:
            damaged = damaged[: rng.integers(len(whole))]
        path.write_bytes(damaged)
        try:
            assert all(isinstance(x, np.ndarray) for x in read_tensors(path).values())
        except CheckpointError as error:
            assert "\n" not in str(error)

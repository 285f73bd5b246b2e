"""Hostile pickles: nothing of a file runs, nothing of ours changes, and memory stays bounded."""

import collections
import copyreg
import io
import os
import pickle
import resource
import struct
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import save
from torch_files import VALUES, legacy, mapping, tensor, zipped

from swaptalk_jax.errors import CheckpointError
from swaptalk_jax.pretrained.formats import torch_pickle
from swaptalk_jax.pretrained.formats.torch_file import read_tensors

X = tensor((2,), (1,))


def refused(path):
    """The line of the error that reading a file ends in."""
    with pytest.raises(CheckpointError) as error:
        read_tensors(path)
    assert str(error.value).isprintable() and len(str(error.value)) < 400 + len(str(path))
    return str(error.value)


class Evil:
    """Unpickling this makes a folder."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_what_a_file_asks_to_be_called_is_not_called(tmp_path, protocol):
    folder = tmp_path / "made"
    evil = pickle.dumps(Evil(folder), protocol)
    inside = evil[:-1] if protocol == 0 else evil[2:-1]
    assert "asks for posix.mkdir" in refused(zipped(tmp_path, mapping(a=inside, x=X)))
    assert not folder.exists()
    pickle.loads(evil)  # and it is a pickle that does it
    assert folder.exists()


def text(value):
    """Opcodes of a string, as protocol 4 writes it."""
    return b"\x8c" + bytes([len(value)]) + value.encode()


NAMES = {
    "os.system": b"cos\nsystem\n(Vtrue\ntR",
    "posix.system": b"cposix\nsystem\n(Vtrue\ntR",
    "nt.system": b"cnt\nsystem\n(Vtrue\ntR",
    "os.popen": b"(Vtrue\nios\npopen\n",
    "os.execv": b"(cos\nexecv\nVtrue\no",
    "builtins.eval": b"cbuiltins\neval\n(V1/0\ntR",
    "builtins.exec": text("builtins") + text("exec") + b"\x93)R",
    "builtins.getattr": b"cbuiltins\ngetattr\n(ctorch\nload\nVx\ntR",
    "builtins.__import__": b"cbuiltins\n__import__\n(Vos\ntR",
    "__builtin__.open": b"c__builtin__\nopen\n(V/tmp/x\ntR",
    "builtins.type": b"cbuiltins\ntype\n(Vx\n)}tR",
    "copyreg._reconstructor": b"ccopyreg\n_reconstructor\n(ctorch\nX\nctorch\nY\nNtR",
    "copyreg.add_extension": b"ccopyreg\nadd_extension\n)R",
    "functools.partial": b"cfunctools\npartial\n)\x81",
    "operator.attrgetter": b"coperator\nattrgetter\n(Vx\ntR",
    "importlib.import_module": text("importlib") + text("import_module") + b"\x93" + b")R",
    "builtins.dict.fromkeys": text("builtins") + text("dict.fromkeys") + b"\x93)R",
    "collections.OrderedDict.fromkeys": (
        text("collections") + text("OrderedDict.fromkeys") + b"\x93)R"
    ),
    "collections.abc.os": text("collections.abc") + text("os") + b"\x93)R",
    "torchevil.FloatStorage": b"ctorchevil\nFloatStorage\n)R",
    "os.system in a REDUCE in a REDUCE": (
        b"ctorch._utils\n_rebuild_parameter\n(cos\nsystem\n(Vtrue\ntRI00\ntR"
    ),
}


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_is_not_on_the_list_is_refused(tmp_path, name):
    line = refused(zipped(tmp_path, mapping(x=X, evil=NAMES[name])))
    assert f"its pickle asks for {name.split()[0]}, which no tensor needs" in line
    path = tmp_path / "old.pth"
    path.write_bytes(legacy(mapping(x=X, evil=NAMES[name])))
    assert f"asks for {name.split()[0]}" in refused(path)


def test_names_of_allowed_packages_lead_to_no_module(tmp_path):
    content = mapping(
        x=X,
        a=b"ctorch.hub\nload\n(Vevil/repo\ntR",
        b=b"cnumpy\nload\n(V/etc/passwd\ntR",
        c=b"cnumpy\nos.system\n(Vtouch x\ntR",
        d=text("torch.serialization") + text("os.system") + b"\x93" + b"(Vtouch x\ntR",
        e=b"ctorch.package\nImporter\n)\x81}(V__setstate__\ncnumpy\nload\nub",
        f=b"cpathlib\nPosixPath\n(Va\nVb\ntR",
    )
    before = set(sys.modules)
    assert list(read_tensors(zipped(tmp_path, content))) == ["x"]
    assert not {"torch", "torch.hub"} & (set(sys.modules) - before)
    for substitute in torch_pickle.SUBSTITUTES.values():
        home = type(substitute) if not isinstance(substitute, type) else substitute
        assert home.__module__ == torch_pickle.__name__


def test_names_that_are_no_text_or_hold_control_characters_are_one_line(tmp_path):
    assert "not a whole" in refused(zipped(tmp_path, mapping(x=b"K\x01K\x02\x93")))
    assert "not a whole" in refused(zipped(tmp_path, mapping(x=b"ctorch\nX\n" * 2 + b"\x93")))
    colourful = text("\x1b[2J\nevil") + text("a\r" * 100) + b"\x93"
    assert "asks for ?[2J?evil.a?a?" in refused(zipped(tmp_path, mapping(x=colourful)))


HOSTILE_STATES = {
    "an OrderedDict's methods": (
        b"ccollections\nOrderedDict\n)R(Vy\n" + X + b"u}(Vitems\ncnumpy\nload\nub"
    ),
    "a tensor's numbers": X + b"}(Voffset\nI99999\nVshape\n(I99\ntub",
    "a tensor's slots": X + b"N}(Voffset\nI99999\nu\x86b",
    "a function's defaults": (
        b"ctorch._utils\n_rebuild_tensor_v2\nN}(V__defaults__\n(I1\ntu\x86b0" + X
    ),
    "a function's function": b"ctorch._utils\n_rebuild_tensor_v2\nN}(Vfunction\nNu\x86b0" + X,
    "a placeholder's state": b"ctorch\nX\n)\x81}(V__class__\nNub0" + X,
}


@pytest.mark.parametrize("name", HOSTILE_STATES)
def test_state_for_allowed_classes_changes_nothing(tmp_path, name):
    path = zipped(tmp_path, mapping(x=HOSTILE_STATES[name], z=X))
    for tensors in (read_tensors(path), read_tensors(path)):  # neither now nor later
        assert list(tensors) == (["x/y", "z"] if "OrderedDict" in name else ["x", "z"])
        for x in tensors.values():
            np.testing.assert_array_equal(x, VALUES[:2])


@pytest.mark.parametrize(
    "target",
    [b"ctorch\nX\n", b"ccollections\nOrderedDict\n", b"]", b"}", b"Vx\n", b"I1\n", b")", b"\x8f"],
)
def test_state_for_classes_and_plain_values_is_refused(tmp_path, target):
    state = b"}(V__setstate__\nNVitems\nNub"
    assert "not a whole" in refused(zipped(tmp_path, mapping(x=X, y=target + state)))
    assert list(read_tensors(zipped(tmp_path, mapping(x=X)))) == ["x"]


def test_only_substitutes_are_called(tmp_path):
    for callee in (
        b"Vx\n",
        b"]",
        b"}",
        X,
        b"ctorch\nX\n)R",
        b"N",
        b"ccollections\nOrderedDict\n)R",
    ):
        assert "not a whole" in refused(zipped(tmp_path, mapping(x=callee + b")R", z=X)))
    wrapped = X
    for _ in range(300):
        wrapped = b"ctorch._utils\n_rebuild_parameter\n(" + wrapped + b"I01\n)tR"
    assert list(read_tensors(zipped(tmp_path, mapping(x=wrapped)))) == ["x"]


def test_a_registered_extension_is_refused(tmp_path):
    copyreg.add_extension("os", "getcwd", 240)
    try:
        line = refused(zipped(tmp_path, mapping(x=X, y=b"\x82\xf0)R")))
    finally:
        copyreg.remove_extension("os", "getcwd", 240)
    assert "asks for an extension of copyreg" in line


def test_buffers_of_protocol_5_are_refused(tmp_path):
    for opcodes in (b"\x97", b"\x97\x98", b"Vx\n\x98\x97"):
        assert "not a whole" in refused(zipped(tmp_path, mapping(x=X, y=opcodes)))
    buffer = b"\x96" + struct.pack("<Q", 3) + b"abc"
    assert list(read_tensors(zipped(tmp_path, mapping(x=X, y=buffer)))) == ["x"]


def laughs(make, count):
    """Opcodes of values that hold the one before them twice, `count` times over."""
    return b"Vx\nq\x01" + b"".join(b"0h\x01h\x01" + make + b"q\x01" for _ in range(count))


SHARED = b"ctorch._utils\n_rebuild_parameter\nh\x01h\x01\x86R"
BOMBS = {
    "a key of nested tuples": (b"}" + b"(" * 90_000 + b"t" * 90_000 + b"I1\ns", "nested"),
    "a key of tuples of one": (b"})" + b"\x85" * 500_000 + b"I1\ns", "nested"),
    "a key that doubles": (b"}" + laughs(b"\x86", 60) + b"I1\ns", "nested"),
    "a set that doubles": (b"\x8f(" + laughs(b"\x86", 60) + b"\x90", "nested"),
    "a doubling through calls": (
        b"}Vx\nq\x010" + (b"h\x01h\x01\x86q\x010" + SHARED + b"q\x010") * 40 + b"h\x01I1\ns",
        "not a whole",
    ),
    "lists that double": (b"]q\x00" + b"](h\x00h\x00eq\x00" * 60, "nested"),
    "a dict in itself": (b"}q\x00Va\nh\x00s", "nested"),
    "a large memo number": (b"Vx\nr" + struct.pack("<I", 2**31 - 1), "not a whole"),
    "a large memo number in text": (b"Vx\np2147483647\n", "not a whole"),
    "a string of a terabyte": (b"\x8d" + struct.pack("<Q", 2**40), "not a whole"),
    "bytes of an exabyte": (b"\x8e" + struct.pack("<Q", 2**60), "not a whole"),
    "a byte array of a terabyte": (b"\x96" + struct.pack("<Q", 2**40), "not a whole"),
    "an integer of two gigabytes": (b"\x8b" + struct.pack("<i", 2**31 - 1), "not a whole"),
    "a frame of a terabyte": (b"\x95" + struct.pack("<Q", 2**40) + b"]", "no tensors"),
    "an integer of many digits": (b"I" + b"9" * 100_000 + b"\n", "not a whole"),
    "a hidden line": (  # the Unpickler drops the start of a line at a frame's end
        b"\x95" + struct.pack("<Q", 4) + b"Vabc" + b"r\xff\xff\xff\x7f\n", "no tensors",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_small_files_do_not_ask_for_much(tmp_path, name):
    content, complaint = BOMBS[name]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert complaint in refused(zipped(tmp_path, content))
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 300_000  # KiB


def test_operations_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(torch_pickle, "OPCODES", 1000)
    assert "over 1000 operations" in refused(zipped(tmp_path, b"]0" * 600 + b"]"))


def test_frames_change_nothing(tmp_path):
    tree = {"a": [1, 2, "x" * 100_000], "b": collections.OrderedDict(c=(3, 4))}
    for protocol in (0, 2, 4, 5):
        tail = b"what follows"
        file = io.BytesIO(pickle.dumps(tree, protocol) + tail)
        found, _ = torch_pickle.read_pickle(file)
        assert found == tree and file.read() == tail


def test_tensors_that_fill_many_times_their_file_are_refused(tmp_path):
    huge = mapping(x=tensor((2**20, 2**20), (0, 0)))
    assert "fill 4398046511104 bytes" in refused(zipped(tmp_path, huge))
    many = mapping(**{f"x{i}": tensor((2000, 100), (0, 0)) for i in range(9)})
    assert "save copies" in refused(zipped(tmp_path, many))


def test_tensors_of_safetensors_cannot_overlap(tmp_path):
    path = tmp_path / "x.safetensors"
    data = save({"x": np.zeros(1000, np.float32)})
    entry = '"%s":{"dtype":"F32","shape":[1000],"data_offsets":[0,4000]}'
    header = ("{" + ",".join(entry % i for i in range(20)) + "}").encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + data[-4000:])
    assert "does not fill its place" in refused(path)


@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
def test_every_cut_of_a_file_is_one_line(tmp_path, form):
    content = mapping(x=tensor((3, 4), (4, 1)), y=mapping(z=tensor((4,), (3,))))
    path = zipped(tmp_path, content)
    forms = {
        "zip": path.read_bytes(),
        "legacy": legacy(content),
        "safetensors": save({"x": VALUES}),
    }
    whole = forms[form]
    path.write_bytes(whole)
    assert read_tensors(path)
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        refused(path)


def test_pipes_folders_and_huge_files_are_refused_unread(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert "not a plain file" in refused(tmp_path / "pipe")
    assert "Is a directory" in refused(tmp_path)
    assert "not a plain file" in refused("/dev/zero")
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(17 << 30)  # sparse
    assert "17.0 GiB, too large" in refused(tmp_path / "huge")


def test_torch_is_not_imported(tmp_path):
    path = zipped(tmp_path, mapping(x=X))
    script = (
        "import sys; from swaptalk_jax.pretrained.formats.torch_file import read_tensors; "
        "read_tensors(sys.argv[1]); sys.exit(bool({'torch', 'onnx', 'tflite'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", script, path]).returncode == 0

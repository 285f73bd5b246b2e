"""Files of torch.save made by hand out of a pickle's opcodes: torch itself is not needed."""

import pickle
import zipfile

import numpy as np

VALUES = np.arange(12, dtype=np.float32)
MAGIC, PROTOCOL = pickle.dumps(0x1950A86A20F9469CFC6C, 2), pickle.dumps(1001, 2)


def integers(*numbers):
    """Opcodes of a tuple of integers."""
    return b"(" + b"".join(b"I%d\n" % n for n in numbers) + b"t"


def tensor(shape, strides, offset=0, kind=b"FloatStorage", count=12, key=b"0"):
    """Opcodes of a tensor as torch pickles it."""
    storage = b"(Vstorage\nctorch\n%s\nV%s\nVcpu\nI%d\ntQ" % (kind, key, count)
    return (
        b"ctorch._utils\n_rebuild_tensor_v2\n("
        + (storage + b"I%d\n" % offset + integers(*shape) + integers(*strides))
        + b"I00\nccollections\nOrderedDict\n)RtR"
    )


def mapping(**items):
    """Opcodes of a dict."""
    return b"(" + b"".join(b"V%s\n" % k.encode() + v for k, v in items.items()) + b"d"


def zipped(tmp_path, content, data=None, **entries):
    """A torch zip with `content` (opcodes) and one storage."""
    data = VALUES.tobytes() if data is None else data
    entries = {"data.pkl": content + b".", "data/0": data, "version": b"3\n"} | entries
    with zipfile.ZipFile(tmp_path / "x.pth", "w") as archive:
        for name, value in entries.items():
            archive.writestr(f"archive/{name}", value)
    return tmp_path / "x.pth"


def legacy(content, machine=None, keys=("0",), count=12, data=None):
    """A file as torch wrote it before 1.6."""
    machine = {"little_endian": True} if machine is None else machine
    data = VALUES.tobytes() if data is None else data
    head = MAGIC + PROTOCOL + pickle.dumps(machine, 2)
    tail = pickle.dumps(list(keys), 2) + count.to_bytes(8, "little") + data
    return head + b"\x80\x02" + content + b"." + tail

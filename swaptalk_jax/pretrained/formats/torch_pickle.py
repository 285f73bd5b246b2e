"""The pickle inside a torch file, read by the standard library's Unpickler under an allow-list.

A pickle names functions and asks to call them. Here a name never leads to a module: `find_class`
hands out substitutes of this file (how torch rebuilds a dense tensor, dictionaries, placeholders)
and refuses all other names. No substitute imports, opens or changes anything.
"""

import dataclasses
import io
import pickle
import pickletools

import ml_dtypes
import numpy as np

from swaptalk_jax.errors import CheckpointError
from swaptalk_jax.pretrained.formats import bounds

# Values by the name of torch's storage class; UntypedStorage counts bytes.
STORAGES = {
    "DoubleStorage": np.float64,
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
    "ComplexFloatStorage": np.complex64,
    "ComplexDoubleStorage": np.complex128,
    "UntypedStorage": np.uint8,
}
# Dtypes without a storage class of their own (torch._utils._rebuild_tensor_v3).
UNTYPED = {"uint16": np.uint16, "uint32": np.uint32, "uint64": np.uint64}
# Things that trainers save beside their tensors. All become placeholders.
PLACEHOLDER_PACKAGES = (
    "lightning", "lightning_fabric", "numpy", "omegaconf", "pytorch_lightning", "torch",
)  # fmt: skip
PLACEHOLDER_NAMES = {
    "__builtin__": "bool bytearray bytes complex dict float frozenset int list object range set "
    "slice str tuple unicode long",
    "_codecs": "encode",
    "argparse": "Namespace",
    "collections": "Counter deque",
    "pathlib": "Path PosixPath PurePosixPath WindowsPath",
    "typing": "Any",
}
PLACEHOLDER_NAMES["builtins"] = PLACEHOLDER_NAMES["__builtin__"]
OPCODES = 2_000_000  # of a pickle; about 50 name one tensor
TUPLE_ITEMS = 10_000  # of a tuple with the tuples inside it


class Closed:
    """A value that the file cannot change: the pickle's BUILD has no effect on it."""

    __slots__ = ()

    def __setstate__(self, state):
        pass


@dataclasses.dataclass(frozen=True)
class Storage(Closed):
    """A storage's key, dtype (None: of a kind that isn't read) and number of values."""

    key: str
    dtype: np.dtype | None
    count: int


@dataclasses.dataclass(frozen=True, eq=False)
class Tensor(Closed):
    """A dense tensor: a view of a storage. offset and strides count elements of `dtype`."""

    storage: Storage
    dtype: np.dtype
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class ElementType(Closed):
    """Stands for a storage class or a dtype of torch."""

    dtype: np.dtype


class Placeholder(Closed):
    """Stands for a thing that is no tensor. It takes whatever it is given and keeps nothing."""

    __slots__ = ()

    def __new__(cls, *_, **__):
        return super().__new__(cls)

    def append(self, *_):
        """Called by APPEND; extend by APPENDS, add by ADDITEMS, __setitem__ by SETITEMS."""

    extend = add = __setitem__ = append


class Mapping(Closed, dict):
    """Stands for OrderedDict and defaultdict: a dictionary without attributes."""

    __slots__ = ()

    def __init__(self, *arguments):
        pairs = arguments[0] if arguments and isinstance(arguments[0], list) else []
        super().__init__((key, value) for key, value in pairs)


class Rebuild(Closed):
    """Stands for a function of torch; calls ours."""

    __slots__ = ("function",)

    def __init__(self, function):
        self.function = function

    def __call__(self, *arguments):
        return self.function(*arguments)


def read_pickle(file):
    """The pickle at the position of a BytesIO -> (tree, {key: Storage}); leaves the file behind it.

    tree: dicts, lists and tuples of numbers, strings, Tensor and Placeholder. Raises
    CheckpointError for a name or an opcode that is not allowed. A pickle that makes no sense raises
    UnpicklingError, ValueError, LookupError, TypeError, AttributeError or EOFError.
    """
    reader = _Reader(io.BytesIO(_checked(file)))
    return reader.load(), reader.storages


class _Reader(pickle.Unpickler):
    """storages: all that the pickle named, by key."""

    def __init__(self, file):
        super().__init__(file)
        self.storages = {}

    def find_class(self, module, name):
        """The substitute of a name. Nothing is imported."""
        if (module, name) in SUBSTITUTES:
            return SUBSTITUTES[module, name]
        if name in PLACEHOLDER_NAMES.get(module, "").split():
            return Placeholder
        if module.partition(".")[0] in PLACEHOLDER_PACKAGES:
            return Placeholder
        raise CheckpointError(
            f"its pickle asks for {bounds.line(f'{module}.{name}', 80)}, which no tensor needs; "
            "nothing of it was run. If you trust the file, load it in torch and save its "
            "state_dict() alone"
        )

    def persistent_load(self, pid):
        """What a persistent id stands for.

        It is ("storage", class, key, device, count, [view]), or ("module", class, file, source) of
        the format before torch 1.6.
        """
        if isinstance(pid, tuple) and pid[0] == "module":
            return Placeholder
        if not isinstance(pid, tuple) or pid[0] != "storage":
            raise ValueError("a persistent id that is no storage")
        _, kind, key, _, count, *view = pid
        if view not in ([], [None]):
            raise ValueError("a view of a storage, as torch wrote before 0.4")
        if not isinstance(key, str) or not _natural(count):
            raise ValueError("a storage without key or count")
        storage = Storage(key, kind.dtype if isinstance(kind, ElementType) else None, count)
        if self.storages.setdefault(key, storage) != storage:
            raise ValueError(f"two different storages named {key}")
        return storage


def _checked(file):
    """The bytes of the pickle at the file's position, without frames, after a look at each opcode.

    The Unpickler itself does not bound what a few bytes can cost: a large memo number fills the
    memory, and hashing tuples in tuples fills the stack or takes forever. Frames are left out
    because the Unpickler reads a line that crosses a frame's end otherwise than pickletools does.
    """
    start, frames, sizes = file.tell(), [], _TupleSizes()
    for number, (opcode, argument, place) in enumerate(pickletools.genops(file)):
        if number > OPCODES:
            raise CheckpointError(f"its pickle has over {OPCODES} operations; is it a checkpoint?")
        if opcode.name.startswith("EXT"):
            raise CheckpointError(
                "its pickle asks for an extension of copyreg; no tensor needs one"
            )
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and argument > OPCODES:
            raise ValueError(f"memo number {argument}")
        if opcode.name == "FRAME":
            frames.append(place)
        sizes.step(opcode, argument)
    end, pieces = file.tell(), []
    for frame in [*frames, end]:
        file.seek(start)
        pieces.append(file.read(frame - start))
        start = frame + 9  # a FRAME is a byte and its length of eight bytes
    file.seek(end)
    return b"".join(pieces)


class _TupleSizes:
    """How many items each value on the pickle's stack has, tuples inside of tuples counted."""

    def __init__(self):
        self.stack, self.marks, self.memo = [], [], {}

    def step(self, opcode, argument):
        """One opcode. Raises CheckpointError for a tuple that is too large, IndexError."""
        name, taken = opcode.name, []
        if name == "MARK":
            self.marks.append(len(self.stack))
            return
        if name == "POP" and self.marks and self.marks[-1] == len(self.stack):
            self.marks.pop()
            return
        if name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            self.memo[len(self.memo) if argument is None else argument] = self.stack[-1]
            return
        if pickletools.markobject in opcode.stack_before:
            mark = self.marks.pop()
            first = mark - opcode.stack_before.index(pickletools.markobject)
            if first < 0:
                raise IndexError(f"nothing for {name} to work on")
            taken = self.stack[mark:]
            del self.stack[first:]
        else:
            taken = [self.stack.pop() for _ in opcode.stack_before]
        items = 1
        if name.startswith("TUPLE"):
            items += sum(taken)
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            items = self.memo[argument]
        elif name == "DUP":
            items = taken[0]
        if items > TUPLE_ITEMS:
            raise CheckpointError("its pickle has tuples nested too deeply to be a checkpoint")
        self.stack += [items] * len(opcode.stack_after)


def _parameter(tensor, *_):
    """A parameter is its tensor."""
    if not isinstance(tensor, Tensor | Placeholder):
        raise ValueError("a parameter that is no tensor")
    return tensor


def _typed(function, _kind, arguments, *_):
    """A tensor with attributes of its own, which are left out."""
    if not isinstance(function, Rebuild):
        return Placeholder()
    return function(*arguments)


def _tensor(storage, offset, shape, strides, _requires_grad=None, _hooks=None, dtype=None, *_):
    """The Tensor that torch would rebuild; a Placeholder where its dtype is not known."""
    if not isinstance(storage, Storage):
        return Placeholder()
    if dtype is None:
        dtype = storage.dtype
    else:
        dtype = dtype.dtype if isinstance(dtype, ElementType) else None
    if dtype is None:
        return Placeholder()
    if not (isinstance(shape, tuple) and isinstance(strides, tuple)):
        raise ValueError("a tensor without shape")
    if not all(_natural(n) for n in (offset, *shape, *strides)) or len(shape) != len(strides):
        raise ValueError(f"a tensor of shape {shape}, strides {strides}, offset {offset}")
    return Tensor(storage, dtype, offset, shape, strides)


def _natural(number):
    return type(number) is int and 0 <= number < 1 << 63


def _substitutes():
    """{(module, name): substitute}."""
    table = {("collections", name): Mapping for name in ("OrderedDict", "defaultdict")}
    for name in ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3"):
        table["torch._utils", name] = Rebuild(_tensor)
    for name in ("_rebuild_parameter", "_rebuild_parameter_with_state"):
        table["torch._utils", name] = Rebuild(_parameter)
    table["torch._tensor", "_rebuild_from_type_v2"] = Rebuild(_typed)
    for module in ("torch", "torch.storage", "torch.cuda"):
        for name, dtype in STORAGES.items():
            table[module, name] = ElementType(np.dtype(dtype))
    for name, dtype in UNTYPED.items():
        table["torch", name] = ElementType(np.dtype(dtype))
    return table


SUBSTITUTES = _substitutes()

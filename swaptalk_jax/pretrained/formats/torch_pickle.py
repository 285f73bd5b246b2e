"""The pickle inside a torch file, walked and never run.

A pickle is a program, and unpickling runs it: it may import and call anything. This small stack
machine reads the same opcodes, knows containers, numbers and strings, and of all that a pickle
asks to be imported and called only how torch rebuilds a dense tensor, by name. Any other call
leaves an inert placeholder. Nothing is ever imported, called or compiled.
"""

import dataclasses
import pickletools

import ml_dtypes
import numpy as np

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
REBUILD = ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3")
PARAMETER = ("_rebuild_parameter", "_rebuild_parameter_with_state")
MAPPINGS = (("collections", "OrderedDict"), ("collections", "defaultdict"))
VALUES = frozenset(
    "INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING "
    "BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8 UNICODE BINUNICODE SHORT_BINUNICODE "
    "BINUNICODE8".split()
)
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}


@dataclasses.dataclass(frozen=True)
class Storage:
    """A storage's key, dtype (None: of a kind that isn't read) and number of values."""

    key: str
    dtype: np.dtype | None
    count: int


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A dense tensor: a view of a storage. offset and strides count elements of `dtype`."""

    storage: Storage
    dtype: np.dtype
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Name:
    """Something that the pickle asks to be imported."""

    module: str
    name: str


class Inert:
    """Stands for whatever a call would have given."""


def walk(file):
    """The pickle at the file's position -> (tree, {key: Storage}); leaves the file behind it.

    tree: dicts, lists and tuples of numbers, strings, Tensor, Name and Inert. Raises ValueError,
    LookupError, TypeError or AttributeError where the opcodes make no sense.
    """
    machine = _Machine()
    for opcode, argument, _ in pickletools.genops(file):
        machine.step(opcode.name, argument)
    return machine.stack.pop(), machine.storages


class _Machine:
    """stack: the values on hand; outer: the stacks set aside by MARK; memo: values by number."""

    def __init__(self):
        self.stack, self.outer, self.memo, self.storages = [], [], {}, {}

    def since_mark(self):
        """What was pushed since the last MARK."""
        items, self.stack = self.stack, self.outer.pop()
        return items

    def pop(self, count):
        """The uppermost `count` values, the lowest first."""
        return [self.stack.pop() for _ in range(count)][::-1]

    def step(self, opcode, argument):
        """One opcode."""
        push = self.stack.append
        if opcode in VALUES:
            return push(argument)
        if opcode in CONSTANTS:
            return push(CONSTANTS[opcode])
        match opcode:
            case "PROTO" | "FRAME" | "STOP":
                pass
            case "MARK":
                self.outer.append(self.stack)
                self.stack = []
            case "POP":
                self.stack.pop()
            case "POP_MARK":
                self.since_mark()
            case "DUP":
                push(self.stack[-1])
            case "MEMOIZE":
                self.memo[len(self.memo)] = self.stack[-1]
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                self.memo[argument] = self.stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                push(self.memo[argument])
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                push(tuple(self.pop(int(opcode[-1]))))
            case _ if opcode in ("EMPTY_DICT", "EMPTY_LIST", "EMPTY_SET"):
                push({"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_SET": Inert}[opcode]())
            case "TUPLE" | "LIST" | "DICT" | "FROZENSET" | "APPENDS" | "SETITEMS" | "ADDITEMS":
                self.gather(opcode, self.since_mark())
            case "APPEND":
                self.gather("APPENDS", self.pop(1))
            case "SETITEM":
                self.gather("SETITEMS", self.pop(2))
            case _:
                self.call(opcode, argument)

    def gather(self, opcode, items):
        """Opcodes that put items into a container."""
        match opcode:
            case "TUPLE":
                self.stack.append(tuple(items))
            case "LIST":
                self.stack.append(items)
            case "DICT":
                self.stack.append(_mapping(items))
            case "FROZENSET":
                self.stack.append(Inert())
            case "APPENDS" if isinstance(self.stack[-1], list):
                self.stack[-1].extend(items)
            case "SETITEMS" if isinstance(self.stack[-1], dict):
                self.stack[-1].update(_mapping(items))
            case _:
                self.stack[-1]  # of a placeholder, or nothing there: IndexError

    def call(self, opcode, argument):
        """Opcodes that import, call, or ask the file's reader for a storage."""
        if opcode in ("INST", "OBJ"):
            self.since_mark()
        push = self.stack.append
        match opcode:
            case "GLOBAL":
                push(Name(*argument.split(" ", 1)))
            case "STACK_GLOBAL":
                push(Name(*self.pop(2)))
            case "REDUCE" | "NEWOBJ":
                function, arguments = self.pop(2)
                push(_called(function, arguments))
            case "BINPERSID":
                push(self.storage(*self.pop(1)[0]))
            case "BUILD":
                self.pop(1)  # attributes, such as a state_dict's _metadata
            case "NEWOBJ_EX":
                self.pop(3)
                push(Inert())
            case "INST" | "OBJ" | "PERSID" | "EXT1" | "EXT2" | "EXT4":
                push(Inert())
            case _:
                raise ValueError(f"opcode {opcode}")

    def storage(self, kind, *details):
        """What a persistent id stands for: ("storage", class, key, device, count, [view])."""
        if kind != "storage":
            return Inert()
        storage_class, key, _, count, *view = details
        if view not in ([], [None]):
            raise ValueError("a view of a storage, as torch wrote before 0.4")
        known = isinstance(storage_class, Name) and STORAGES.get(storage_class.name)
        if not isinstance(key, str) or not _natural(count):
            raise ValueError("a storage without key or count")
        storage = Storage(key, np.dtype(known) if known else None, count)
        if self.storages.setdefault(key, storage) != storage:
            raise ValueError(f"two different storages named {key}")
        return storage


def _mapping(items):
    """Dict of alternating keys and values; only strings and integers name anything."""
    pairs = zip(items[::2], items[1::2], strict=True)
    return {key: value for key, value in pairs if isinstance(key, str | int)}


def _called(function, arguments):
    """What a call gives, of the few that are known by name; Inert for all others."""
    if not isinstance(function, Name) or not isinstance(arguments, tuple):
        return Inert()
    if (function.module, function.name) in MAPPINGS:
        pairs = arguments[0] if arguments and isinstance(arguments[0], list) else []
        return _mapping([x for pair in pairs for x in pair])
    if function.module == "torch._tensor" and function.name == "_rebuild_from_type_v2":
        return _called(arguments[0], arguments[2])  # a tensor with attributes of its own
    if function.module != "torch._utils":
        return Inert()
    if function.name in PARAMETER:
        return arguments[0]
    return _tensor(*arguments) if function.name in REBUILD else Inert()


def _tensor(storage, offset, shape, strides, _requires_grad=None, _hooks=None, dtype=None, *_):
    """The Tensor that torch would rebuild; Inert where its dtype is not known."""
    if not isinstance(storage, Storage):
        return Inert()
    dtype = storage.dtype if not isinstance(dtype, Name) else UNTYPED.get(dtype.name)
    if dtype is None:
        return Inert()
    if not (isinstance(shape, tuple) and isinstance(strides, tuple)):
        raise ValueError("a tensor without shape")
    if not all(_natural(n) for n in (offset, *shape, *strides)) or len(shape) != len(strides):
        raise ValueError(f"a tensor of shape {shape}, strides {strides}, offset {offset}")
    return Tensor(storage, np.dtype(dtype), offset, shape, strides)


def _natural(number):
    return type(number) is int and number >= 0

"""Reads the text of XLA's optimised programs (HLO): computations, instructions, what they compute.

Only what `costs` asks of it. The format is that of `compiled.as_text()`; XLA has no other stable
way to tell how often a loop runs, what its collectives carry, or which arrays lie in fast memory.
"""

import dataclasses
import functools
import json
import math
import re

import numpy as np

# Bytes of an element; what is missing (token, opaque) holds nothing.
BITS = {"pred": 8, "bf16": 16, "c64": 64, "c128": 128, "f16": 16, "f32": 32, "f64": 64}
ARRAY = re.compile(r"\b([a-z]+\d*\w*)\[([\d,<=]*)\](?:\{([^}]*)\})?")
HEAD = re.compile(r"^\s*(ROOT )?%?([\w.\-]+) = ")
COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
NAME = re.compile(r"%([\w.\-]+)")
GEMM = re.compile(r"gemm|matmul")  # custom calls of cuBLAS and oneDNN


@dataclasses.dataclass(frozen=True)
class Array:
    """Shape of one array: dtype (XLA's name), dims, and whether it lies in the main memory.

    On a TPU other memory spaces (`S(1)` in its layout: VMEM) cost no bandwidth of the HBM.
    """

    dtype: str
    dims: tuple[int, ...]
    main: bool = True

    @property
    def size(self):
        """Number of elements."""
        return math.prod(self.dims)

    @property
    def nbytes(self):
        """Bytes without the padding of tiles."""
        digits = re.match(r"[suf](\d+)", self.dtype)  # s32, u8, f8e4m3fn
        bits = BITS.get(self.dtype, int(digits[1]) if digits else 0)
        return self.size * bits / 8


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line: its arrays (a tuple's leaves in order), opcode, operands' names, all else as text.

    inner: the text between the opcode's parentheses.
    """

    name: str
    arrays: tuple[Array, ...]
    opcode: str
    operands: tuple[str, ...]
    inner: str
    rest: str
    root: bool

    def attribute(self, pattern):
        """The first group of `pattern` in the attributes, or None."""
        match = re.search(pattern, self.rest)
        return match[1] if match else None

    @property
    def nbytes(self):
        """Bytes of its result."""
        return sum(a.nbytes for a in self.arrays)


@dataclasses.dataclass(frozen=True)
class Module:
    """computations: {name: {instruction's name: Instruction}}; entry: the name of the first."""

    computations: dict[str, dict[str, Instruction]]
    entry: str


@functools.lru_cache(maxsize=4096)  # a program has few types
def arrays(text):
    """The arrays of a type such as `(f32[8,2]{1,0:T(8,128)S(1)}, u32[])`."""
    return tuple(
        Array(
            dtype,
            tuple(int(n.lstrip("<=")) for n in dims.split(",") if n),
            re.search(r"S\([1-9]", layout) is None,
        )
        for dtype, dims, layout in ARRAY.findall(text)
    )


def parse(text):
    """The Module of an HLO text. Raises ValueError where it has no ENTRY."""
    computations, entry, current = {}, None, None
    for line in text.splitlines():
        head = COMPUTATION.match(line)
        if head:
            current = computations.setdefault(head[2], {})
            entry = head[2] if head[1] else entry
        elif current is not None and HEAD.match(line):
            instruction = _instruction(line)
            current[instruction.name] = instruction
    if entry is None:
        raise ValueError("this is no HLO text: it has no ENTRY computation")
    return Module(computations, entry)


def _instruction(line):
    head = HEAD.match(line)
    body = line[head.end() :]
    end = _closing(body, 0) if body.startswith("(") else body.index(" ")
    kind, body = body[:end], body[end:].lstrip()
    opening = body.index("(")
    # A constant's text may hold anything, but parentheses only where it isn't a number.
    closing = body.find(")") + 1 if body.startswith("constant") else _closing(body, opening)
    inner = body[opening + 1 : closing - 1]
    operands = tuple(NAME.findall(inner))
    return Instruction(
        head[2], arrays(kind), body[:opening], operands, inner, body[closing:], bool(head[1])
    )


def _closing(text, start):
    """Position behind the parenthesis that closes the one at `start`."""
    depth = 0
    for match in re.finditer(r"[()]", text[start:]):
        depth += 1 if match[0] == "(" else -1
        if not depth:
            return start + match.end()
    raise ValueError(f"unbalanced parentheses: {text[:80]}")


def trips(module, block, loop):
    """How often the body of a `while` of `block` runs, or None where nobody can tell.

    XLA notes it of most loops, not of a TPU's; there it is read from `i < constant` in the
    condition, the counter's start before the loop and what the body adds to it.
    """
    noted = loop.attribute(r'"known_trip_count":\{"n":"(\d+)"')
    if noted:
        return int(noted)
    condition, body = (
        module.computations[loop.attribute(rf"\b{part}=%?([\w.\-]+)")]
        for part in ("condition", "body")
    )
    compare = next(i for i in condition.values() if i.root)
    if compare.opcode != "compare" or compare.attribute(r"direction=(\w+)") != "LT":
        return None
    counter, stop = (_source(condition, name) for name in compare.operands)
    if counter.opcode != "get-tuple-element" or stop.opcode != "constant":
        return None
    place = int(counter.attribute(r"index=(\d+)"))
    before, after = block[loop.operands[0]], next(i for i in body.values() if i.root)
    if before.opcode != "tuple" or after.opcode != "tuple":
        return None
    start, step = _source(block, before.operands[place]), _added(body, after.operands[place], place)
    if start.opcode != "constant" or not step:
        return None
    return max(0, math.ceil((int(stop.inner) - int(start.inner)) / step))


def _source(block, name):
    """The instruction behind copies."""
    while block[name].opcode == "copy":
        name = block[name].operands[0]
    return block[name]


def _added(body, name, place):
    """What a body's additions make of its argument's element `place`; None: something else."""
    total, value = 0, _source(body, name)
    while value.opcode == "add":
        parts = [_source(body, operand) for operand in value.operands]
        numbers = [p for p in parts if p.opcode == "constant"]
        if len(numbers) != 1:
            return None
        total += int(numbers[0].inner)
        value = next(p for p in parts if p.opcode != "constant")
    same = value.opcode == "get-tuple-element" and value.attribute(r"index=(\d+)") == str(place)
    return total if same else None


def flops(i, block):
    """Multiply-adds of one instruction, 2 FLOPs each; 0 for what is no product."""
    labels = i.attribute(r"dim_labels=([\w?]+_[\w?]+->[\w?]+)")
    if labels:  # a convolution, of XLA or (cuDNN) a custom call
        return _convolution(i, block, labels)
    if i.opcode == "dot":
        contracted = i.attribute(r"lhs_contracting_dims=\{([\d,]*)\}")
    elif i.opcode == "custom-call" and GEMM.search(i.rest):
        axes = i.attribute(r'"lhs_contracting_dimensions":(\[[^\]]*\])')
        contracted = ",".join(json.loads(axes)) if axes else ""
    else:
        return 0.0
    sizes = block[i.operands[0]].arrays[0].dims
    inner = math.prod(sizes[int(d)] for d in contracted.split(",") if d)
    return 2.0 * i.arrays[0].size * inner


def _convolution(i, block, labels):
    """As XLA's HloCostAnalysis: pairs of a kernel's tap and an output whose input is no padding."""
    lhs, rhs, out = re.split(r"_|->", labels)
    sizes = {"in": block[i.operands[0]].arrays[0].dims, "out": i.arrays[0].dims}
    kernel = block[i.operands[1]].arrays[0].dims
    window = i.attribute(r"window=\{([^}]*)\}") or ""
    pairs = 1
    for axis in sorted(set(rhs) - set("io?")):
        n = int(axis)
        a, b = sizes["in"][lhs.index(axis)], sizes["out"][out.index(axis)]
        taps = np.arange(kernel[rhs.index(axis)]) * _window(window, "rhs_dilate", n)
        starts = np.arange(b) * _window(window, "stride", n) - _window(window, "pad", n)
        places = starts[:, None] + taps[None]
        dilation = _window(window, "lhs_dilate", n)
        inside = (places >= 0) & (places <= (a - 1) * dilation) & (places % dilation == 0)
        pairs *= int(inside.sum())
    groups = [int(i.attribute(rf"{g}_group_count=(\d+)") or 1) for g in ("feature", "batch")]
    features = sizes["in"][lhs.index("f")] // groups[0] * sizes["out"][out.index("f")]
    return 2.0 * pairs * features * (sizes["in"][lhs.index("b")] // groups[1])


def _window(window, key, axis):
    """One number of a window: of `pad` the low one (0), of the others 1 where it isn't there."""
    entry = re.search(rf"\b{key}=(\S+)", window)
    if not entry:
        return 0 if key == "pad" else 1
    return int(entry[1].split("x")[axis].split("_")[0])

"""What a compiled program costs a device: FLOPs, memory, traffic, collectives; and a lower bound
of its time.

    costs_of(jax.jit(step).lower(...).compile())

Counted in the optimised program (hlo.py), which is what one device runs. XLA's own
`cost_analysis()` counts the body of a loop once, however often it runs (microbatches), calls fast
memory traffic, and gives no collectives; where there is no loop, its FLOPs and these agree to the
share that isn't matrix products (tests/test_costs.py).
"""

import dataclasses
import functools
import re

from swaptalk_jax.costs import hlo

COLLECTIVES = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "collective-permute",
    "all-to-all",
)
# They move nothing themselves: names, views, or what follows is counted in their computations.
FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "conditional"}
FREE |= {"call", "async-start", "after-all", "partition-id", "replica-id", "opt-barrier"}
SLICES = {"dynamic-slice", "slice", "gather"}
# Custom calls that compute nothing.
IDLE = {"AllocateBuffer", "Sharding", "SPMDFullToShardShape", "SPMDShardToFullShape"}
IDLE |= {"AssumeGatherIndicesInBound", "annotate_device_placement", "MoveToDevice", "MoveToHost"}
IDLE |= {"AsyncCollectiveStart", "AsyncCollectiveDone", "ConcatBitcast"}
IDLE |= {"GatherScatterIndicesBitpacked"}


@dataclasses.dataclass(frozen=True)
class Collective:
    """How many a step, and bytes of their payload together.

    The payload is the whole buffer that a device takes part in: of an all-reduce, reduce-scatter,
    all-to-all or permutation its operand, of an all-gather its result.
    """

    count: int = 0
    bytes: float = 0.0


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes a device, as XLA's buffer assignment has them; `total` is all that must be there."""

    arguments: int
    outputs: int
    temporaries: int
    aliased: int  # outputs that lie where a donated argument was
    code: int

    @property
    def total(self):
        """Arguments, outputs not in an argument's place, temporaries at their peak, program."""
        return self.arguments + self.outputs - self.aliased + self.temporaries + self.code


@dataclasses.dataclass(frozen=True)
class Costs:
    """Of one call, on one device.

    flops: of matrix products and convolutions, 2 for each multiply-add, padding left out, what
    `remat` computes again counted in; of a `lax.cond` the dearer branch. bytes: moved to and from
    main memory, each kernel reading and writing its arrays once. collectives: {kind: Collective};
    one that was split in start and done counts once. endless: loops whose count XLA can't tell,
    taken once. uncounted: custom calls whose FLOPs nobody here can read; not empty: `flops` is a
    lower bound.
    """

    flops: float
    bytes: float
    memory: Memory | None
    collectives: dict[str, Collective]
    endless: int = 0
    uncounted: tuple[str, ...] = ()


def from_dict(values):
    """Costs of what `dataclasses.asdict` made of one, and JSON of that."""
    return Costs(
        **values
        | {
            "memory": values["memory"] and Memory(**values["memory"]),
            "collectives": {k: Collective(**c) for k, c in values["collectives"].items()},
            "uncounted": tuple(values["uncounted"]),
        }
    )


def costs_of(compiled):
    """Costs of a `jax.stages.Compiled`."""
    return dataclasses.replace(costs_of_text(compiled.as_text()), memory=memory_of(compiled))


def memory_of(compiled):
    """Memory of a `jax.stages.Compiled`; None: its backend doesn't tell."""
    stats = compiled.memory_analysis()
    if stats is None:
        return None
    return Memory(
        arguments=stats.argument_size_in_bytes,
        outputs=stats.output_size_in_bytes,
        temporaries=stats.temp_size_in_bytes,
        aliased=stats.alias_size_in_bytes,
        code=stats.generated_code_size_in_bytes,
    )


def costs_of_text(text):
    """Costs, without memory, of an optimised HLO text."""
    return Count(hlo.parse(text)).all()


class Count:
    """Adds up an hlo.Module from its entry on, following calls, loops, branches and fusions."""

    def __init__(self, module):
        self.module = module
        self.computation = functools.cache(self.computation)

    def all(self):
        """Costs of the entry."""
        return self.computation(self.module.entry, False)

    def computation(self, name, fused):
        """Costs of one run of a computation; inside a fusion nothing touches main memory."""
        block = self.module.computations[name]
        parts = [self.instruction(i, block, fused) for i in block.values()]
        return functools.reduce(_plus, parts, _NOTHING)

    def instruction(self, i, block, fused):
        """Costs of one instruction with all that it calls."""
        kind = i.opcode.removesuffix("-start")
        if i.opcode.endswith(("-done", "-update")) or i.opcode in ("parameter", "constant"):
            return _NOTHING
        own = Costs(hlo.flops(i, block), 0.0 if fused else self.traffic(i, block), None, {})
        if kind in COLLECTIVES:
            again = _continued(i, block)
            return own if again else _plus(own, _NOTHING, {kind: Collective(1, payload(i, block))})
        if i.opcode == "custom-call":
            target = i.attribute(r'custom_call_target="([^"]*)"')
            unread = not own.flops and target not in IDLE
            return dataclasses.replace(own, uncounted=(target,) if unread else ())
        return _plus(own, self.called(i, block, fused))

    def called(self, i, block, fused):
        """Costs of the computation that an instruction runs."""
        found = self.runs(i, block)
        if found is None:
            return _NOTHING
        name, times = found
        inside = self.computation(name, fused or i.opcode == "fusion")
        return _plus(inside, Costs(0, 0, None, {}, 1)) if times is None else _times(inside, times)

    def runs(self, i, block):
        """(name of the computation that an instruction runs, how often), or None: it runs none.

        How often: None where nobody can tell. Of a conditional's branches the dearest.
        """
        if i.opcode == "while":
            return i.attribute(r"\bbody=%?([\w.\-]+)"), hlo.trips(self.module, block, i)
        if i.opcode == "conditional":
            names = i.attribute(r"branch_computations=\{([^}]*)\}")
            names = names or " ".join(re.findall(r"(?:true|false)_computation=(%[\w.\-]+)", i.rest))
            costs = {n: self.computation(n, False) for n in hlo.NAME.findall(names)}
            return max(costs, key=lambda n: (costs[n].flops, costs[n].bytes)), 1
        if i.opcode in ("fusion", "call", "async-start"):
            return i.attribute(r"\b(?:calls|to_apply)=%?([\w.\-]+)"), 1
        return None

    def traffic(self, i, block):
        """Bytes that a kernel reads from and writes to main memory."""
        if i.opcode in FREE:
            return 0.0
        operands = [block[n] for n in dict.fromkeys(i.operands) if n in block]
        if i.opcode == "fusion":
            return self.fusion_traffic(i, block)
        if i.opcode.removesuffix("-start") in SLICES:
            # A start's result: its operands, what it makes, words of its state.
            piece = i.arrays[len(i.operands)] if i.opcode.endswith("-start") else i.arrays[0]
            return piece.nbytes * (bool(_main(operands[0].arrays)) + piece.main)
        if i.opcode == "dynamic-update-slice":
            return 2 * _main(operands[1].arrays) if _main(i.arrays) else 0.0
        # Of the others' starts what they make comes first.
        result = i.arrays[:1] if i.opcode.endswith("-start") else i.arrays
        if i.opcode == "all-gather-start":
            result = _gathered(i, block)
        return _main(result) + sum(_main(o.arrays) for o in operands)

    def fusion_traffic(self, i, block):
        """Of a fusion: of operands that it only slices the slices, of updates in place these."""
        inside = self.module.computations[i.attribute(r"\bcalls=%?([\w.\-]+)")]
        total = 0.0
        for parameter in (p for p in inside.values() if p.opcode == "parameter"):
            given = block.get(i.operands[int(parameter.inner)])
            users = [u for u in inside.values() if parameter.name in u.operands]
            first = all(u.operands[0] == parameter.name for u in users)
            if given is None or not _main(given.arrays):
                continue
            if users and first and all(u.opcode in SLICES for u in users):
                total += sum(u.nbytes for u in users)
            elif not (users and first and all(u.opcode == "dynamic-update-slice" for u in users)):
                total += _main(given.arrays)
        root = next(u for u in inside.values() if u.root)
        results = [inside[n] for n in root.operands] if root.opcode == "tuple" else [root]
        for result, array in zip(results, i.arrays, strict=False):
            update = result.opcode == "dynamic-update-slice"
            written = inside[result.operands[1]].nbytes if update else array.nbytes
            total += written if array.main else 0.0
        return total


def _continued(i, block):
    """Whether this is the later part of a TPU's collective that goes on across several fusions.

    Each of them names the collective once more; the first one also has a call that starts it.
    """
    return "chain_id=" in i.rest and not any(
        "AsyncCollectiveStart" in j.rest for j in block.values()
    )


def _main(arrays):
    return sum(a.nbytes for a in arrays if a.main)


def _gathered(i, block):
    """The arrays that an all-gather makes; a start's result begins with its operands."""
    n = sum(len(block[name].arrays) for name in i.operands)
    return i.arrays[n : 2 * n] if i.opcode.endswith("-start") else i.arrays


def payload(i, block):
    """Bytes of a collective's whole buffer, see Collective."""
    if i.opcode.startswith("all-gather"):
        return sum(a.nbytes for a in _gathered(i, block))
    return sum(block[name].nbytes for name in i.operands)


_NOTHING = Costs(0.0, 0.0, None, {})


def _plus(a, b, more=None):
    kinds = dict(a.collectives)
    for kind, c in (*b.collectives.items(), *(more or {}).items()):
        total = kinds.get(kind, Collective())
        kinds[kind] = Collective(total.count + c.count, total.bytes + c.bytes)
    names = tuple(sorted({*a.uncounted, *b.uncounted}))
    return Costs(a.flops + b.flops, a.bytes + b.bytes, None, kinds, a.endless + b.endless, names)


def _times(a, n):
    kinds = {k: Collective(n * c.count, n * c.bytes) for k, c in a.collectives.items()}
    return Costs(n * a.flops, n * a.bytes, None, kinds, a.endless, a.uncounted)

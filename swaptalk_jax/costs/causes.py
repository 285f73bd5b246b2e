"""What a program's FLOPs, traffic and time are for: its networks, and what is in each of them.

Read from the names that JAX gives to instructions: scopes of the modules, `transpose` of a way
back, `rematted_computation` of what is computed again.
"""

import collections
import dataclasses
import re

from swaptalk_jax.costs.count import Count

AGAIN = "computed again"
ASYNCHRONOUS = "any: fetched ahead"
# Dense layers of an attention layer are products; the rest of it is between tokens.
DENSE = {"query", "key", "value", "out"}


@dataclasses.dataclass(frozen=True)
class Cause:
    """Of one cause, a step on one device.

    flops, bytes: as count.Costs has them. seconds: of its kernels one after another, each as long
    as its products or its traffic take at the chip's peaks, whichever is longer. What is fetched
    while other kernels run takes none. kernels: how many.
    """

    flops: float = 0.0
    bytes: float = 0.0
    seconds: float = 0.0
    kernels: int = 0


def by_cause(module, chip):
    """{"<network>: <what>": Cause} of an hlo.Module on a chips.Chip, the longest first.

    <what> is one of: products (matrix products and convolutions, with what XLA fused into them),
    attention (scores, softmax and weights), norms, copies (from one layout to another), elementwise
    (all else), computed again (by remat). Work outside of all networks is `losses, optimizer`.
    """
    sums = collections.defaultdict(Cause)
    count = Count(module)
    for i, costs, times, ahead in _kernels(count, module.entry):
        name = ASYNCHRONOUS if ahead else cause(_op_name(module, i), i.opcode, costs.flops)
        each = max(costs.flops / chip.peak_flops, costs.bytes / chip.hbm_bandwidth)
        old = sums[name]
        sums[name] = Cause(
            old.flops + times * costs.flops,
            old.bytes + times * costs.bytes,
            old.seconds + times * each * (not ahead),
            old.kernels + times,
        )
    return dict(sorted(sums.items(), key=lambda item: -item[1].seconds))


def _kernels(count, name, times=1, ahead=False):
    """(instruction, Costs of one run, runs, whether others run meanwhile) of what costs."""
    block = count.module.computations[name]
    for i in block.values():
        found = None if i.opcode == "fusion" else count.runs(i, block)
        if found:
            more = times * (found[1] or 1)
            yield from _kernels(count, found[0], more, ahead or i.opcode == "async-start")
            continue
        costs = count.instruction(i, block, False)
        if costs.flops or costs.bytes:
            yield i, costs, times, ahead or i.opcode.endswith("-start")


def _op_name(module, i):
    """JAX's name of an instruction, or of one that was fused into it; "": none has one."""
    pattern = r'op_name="([^"]*)"'
    own = i.attribute(pattern)
    if own or i.opcode != "fusion":
        return own or ""
    inside = module.computations[i.attribute(r"\bcalls=%?([\w.\-]+)")].values()
    return next(filter(None, (j.attribute(pattern) for j in reversed(inside))), "")


def cause(op_name, opcode, flops):
    """The cause of a kernel, see `by_cause`.

    op_name: JAX's, such as `jit(step)/jvp(VQGAN)/norm/mul`. flops: its products; 0: none.
    """
    scopes = op_name.split("/")
    networks = re.findall(r"jvp\(([A-Z][\w.]*)\)", op_name)
    networks += [scope for scope in scopes if scope[:1].isupper()]
    network = networks[0] if networks else "losses, optimizer"
    if "rematted_computation" in scopes:
        return f"{network}: {AGAIN}"
    if any("attention" in s for s in scopes) and not (DENSE & {*scopes} or "norm" in scopes):
        return f"{network}: attention"
    if flops:
        return f"{network}: products"
    if opcode == "copy":
        return f"{network}: copies"
    return f"{network}: {'norms' if any('norm' in s for s in scopes) else 'elementwise'}"


def bound(found):
    """Seconds of all kernels one after another; found: of `by_cause`."""
    return sum(c.seconds for c in found.values())


def share(found, chip):
    """The part of the chip's peak that a step of `bound` seconds uses, without what remat adds."""
    useful = sum(c.flops for name, c in found.items() if not name.endswith(AGAIN))
    return useful / chip.peak_flops / bound(found)


def table(found, least=0.005):
    """Lines of text, one a cause that takes at least this share of the time or of the traffic."""
    whole, traffic = bound(found), sum(c.bytes for c in found.values())
    shown = {n: c for n, c in found.items() if max(c.seconds / whole, c.bytes / traffic) >= least}
    width = max(map(len, shown))
    lines = [f"{'cause':<{width}}    TFLOP       GB       ms     %  kernels"]
    lines += [
        f"{name:<{width}} {c.flops / 1e12:8.3f} {c.bytes / 1e9:8.2f} {1e3 * c.seconds:8.2f}"
        f" {100 * c.seconds / whole:5.1f} {c.kernels:8}"
        for name, c in shown.items()
    ]
    return lines

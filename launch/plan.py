"""Compiles a stage's training step for machines that aren't there: does it fit, how fast at best?

    python launch/plan.py --config=configs/vqgan.py --topology=v5e:16x16
    python launch/plan.py --config=configs/swap.py --topology=v6e:2x2 --largest --remat=both
    python launch/plan.py --all --topology=v5e:2x2,v5p:2x2x1,v6e:2x2     # a table of all stages

It needs a CPU, libtpu (`pip install 'jax[tpu]'`) and minutes, no data and no trained networks: all
arrays are shapes (costs/abstract.py). TPU topologies: v4:2x2x1, v5e:16x16, v5p:4x4x4 ...;
what is told of them is what the TPU's compiler says, times apart, which are bounds (costs/).
`gpu:h100x8` (chips.py has the names) is an estimate: the CPU's compiler counts FLOPs and gradients
as a GPU's would, but its memory and traffic are those of less fusion and of wider numbers.

Options of the config are given as in training: --config.train.batch_size=512. Batches are global.
Without data the recogniser's classes are 300 people; the set that config.data.resident keeps on the
devices is not counted.
"""

import dataclasses
import importlib
import math
import re
import time

import jax
from absl import app, flags
from ml_collections import config_flags

from configs import common
from swaptalk_jax import backend, costs, sharding, stages
from swaptalk_jax.costs.abstract import Abstract
from swaptalk_jax.costs.targets import Target, target

GIB = 1 << 30


@dataclasses.dataclass(frozen=True)
class Plan:
    """A step compiled, or (costs None) refused for want of memory; used: bytes a device."""

    stage: str
    target: Target
    remat: bool
    batch: int  # global
    used: float
    costs: costs.Costs | None
    seconds: float

    @property
    def each(self):
        """Examples a device."""
        return self.batch // len(self.target.devices)

    @property
    def fits(self):
        """Whether the compiler took it, and its memory is the chip's."""
        return self.costs is not None and self.used <= self.target.chip.hbm_bytes

    @property
    def bound(self):
        """costs.Bound of a step."""
        return costs.roofline(self.costs, self.target.chip, len(self.target.devices))


class Planner:
    """Compiles one stage, at any batch, for one target; remembers what it compiled."""

    def __init__(self, config, goal, remat=None):
        self.config, self.goal, self.made = config.copy_and_resolve_references(), goal, {}
        if remat is not None:
            self.config.remat = remat
        if self.config.precision == "auto":
            self.config.precision = "bfloat16"  # what "auto" means there
        size = common.IMAGE_SIZE[config.size]
        self.abstract = Abstract(self.config, self.upstream, size)
        self.mesh = sharding.make_mesh(self.config.mesh, goal.devices)

    def upstream(self, name):
        """The config of another stage, at the same size."""
        return importlib.import_module(f"configs.{name}").get_config(self.config.size)

    def least(self):
        """The smallest global batch: an example of each microbatch on each device."""
        return self.mesh.shape[sharding.AXIS] * self.config.train.accumulate

    def plan(self, batch):
        """The Plan of a global batch."""
        if batch not in self.made:
            began = time.perf_counter()
            # Of a program that never runs the machine code may be slow: half of a CPU's compiling.
            fast = {"xla_backend_optimization_level": 0}
            options = backend.compiler_options() | fast if self.goal.estimate else None
            lowered = self.abstract.lower(self.mesh, batch, options)
            try:
                counted = costs.of(lowered.compile())
                used = counted.memory.total
            except jax.errors.JaxRuntimeError as error:
                counted, used = None, _wanted(error)
            self.made[batch] = Plan(
                self.config.stage,
                self.goal,
                self.config.remat,
                batch,
                used,
                counted,
                time.perf_counter() - began,
            )
            told(self.made[batch])
        return self.made[batch]

    def largest(self):
        """The Plan of the largest batch that fits, or None; the next larger one was refused."""
        unit = self.least()
        first = max(1, self.config.train.batch_size // 8 // self.config.train.accumulate)
        n = largest(lambda n: self.plan(n * unit), first, self.goal.chip.hbm_bytes)
        return self.made[n * unit] if n else None


def _wanted(error):
    """Bytes that a program wanted, of the compiler's refusal; raises other errors again."""
    if "RESOURCE_EXHAUSTED" not in str(error) and "Ran out of memory" not in str(error):
        raise error
    found = re.search(r"Used ([\d.]+)([KMG]) of", str(error))
    return float(found[1]) * {"K": 1 << 10, "M": 1 << 20, "G": GIB}[found[2]] if found else math.inf


def largest(attempt, first, limit):
    """The largest n of those that `rounded` knows whose attempt(n) fits; 0: not even 1.

    attempt(n) -> object with `fits` and `used` bytes. Memory grows about linearly with a batch, so
    the search goes where the line through the two nearest attempts meets `limit`, and ends when n
    fits and the next larger one doesn't.
    """
    low, high = 0, None  # fits, doesn't
    tried, n = {}, rounded(first)
    while True:
        tried[n] = attempt(n)
        low, high = (n, high) if tried[n].fits else (low, n)
        if high is not None and rounded(low + 1, up=True) >= high:
            return low
        known = sorted((k for k in tried if math.isfinite(tried[k].used)), key=lambda k: abs(k - n))
        if len(known) < 2:
            n = 2 * n if tried[n].fits else max(1, n // 2)
        else:
            a, b = sorted(known[:2])
            slope = max(1.0, (tried[b].used - tried[a].used) / (b - a))
            n = rounded(max(1, int(a + (limit - tried[a].used) / slope)))
        top = 4 * low if high is None else high - 1  # a line from small batches reaches too far
        n = min(max(n, low + 1), max(top, 1))
        n = rounded(n) if rounded(n) > low else rounded(low + 1, up=True)


def rounded(n, up=False):
    """n with three binary digits: 1 ... 8, 10, 12, 14, 16, 20 ...; the next one below, or above."""
    unit = 1 << max(0, int(n).bit_length() - 3)
    return -(-n // unit) * unit if up else n // unit * unit


def told(plan):
    """One line of a compilation, as it ends."""
    where = f"[{plan.stage}] {plan.target.name}, remat {'on' if plan.remat else 'off'}, "
    where += f"{plan.each} a device: "
    limit = plan.target.chip.hbm_bytes
    what = f"{plan.used / GIB:.2f} of {limit / GIB:.0f} GiB, {'fits' if plan.fits else 'too large'}"
    print(f"{where}{what} ({plan.seconds:.0f} s)", flush=True)


def report(plan):
    """All that is known of a Plan, as text."""
    devices, chip = len(plan.target.devices), plan.target.chip
    lines = [
        f"{plan.stage} on {devices} x {chip.name}, batch {plan.batch} ({plan.each} a device), "
        f"remat {'on' if plan.remat else 'off'}" + (" (estimate)" if plan.target.estimate else "")
    ]
    if plan.costs is None:
        return f"{lines[0]}\n  does not fit: {plan.used / GIB:.2f} GiB a device wanted"
    c, m, b = plan.costs, plan.costs.memory, plan.bound
    lines += [
        f"memory a device  {m.total / GIB:.2f} of {chip.hbm_bytes / GIB:.0f} GiB: arguments "
        f"{m.arguments / GIB:.2f}, results elsewhere {(m.outputs - m.aliased) / GIB:.2f}, "
        f"temporary {m.temporaries / GIB:.2f}, program {m.code / GIB:.2f}",
        f"work a device    {c.flops / 1e12:.3f} TFLOP, {c.bytes / 1e9:.2f} GB of memory traffic",
    ]
    for kind, found in sorted(c.collectives.items()):
        lines.append(f"{kind:<17}{found.count} x, {found.bytes / 1e6:.2f} MB together")
    lines.append(
        f"a step at best   {1e3 * b.seconds:.2f} ms, bound by {b.by} (compute "
        f"{1e3 * b.compute:.2f}, memory {1e3 * b.memory:.2f}, interconnect "
        f"{1e3 * b.interconnect:.2f}): {plan.batch / b.seconds:.0f} examples/s"
    )
    if c.endless:
        lines.append(f"{c.endless} loops of unknown length are counted once")
    if c.uncounted:
        lines.append(f"not counted: {', '.join(c.uncounted)}")
    return "\n  ".join(lines)


COLUMNS = (
    "stage",
    "chip",
    "remat",
    "batch a chip",
    "GiB of HBM",
    "TFLOP an example",
    "collectives a step, MB",
    "step at best, ms",
    "bound by",
    "examples/s a chip at best",
)


def row(plan):
    """Cells of COLUMNS."""
    c, b = plan.costs, plan.bound
    return (
        plan.stage,
        plan.target.chip.name + (" (estimate)" if plan.target.estimate else ""),
        "on" if plan.remat else "off",
        str(plan.each),
        f"{plan.used / GIB:.1f} of {plan.target.chip.hbm_bytes / GIB:.0f}",
        f"{c.flops / plan.each / 1e12:.3g}",
        f"{sum(k.bytes for k in c.collectives.values()) / 1e6:.0f}",
        f"{1e3 * b.seconds:.3g}",
        b.by,
        f"{plan.each / b.seconds:.3g}",
    )


def table(rows):
    """Markdown."""
    lines = [COLUMNS, ("---",) * len(COLUMNS), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def planned(planner, search):
    """The Plan that was asked for: the config's batch, or the largest."""
    if search:
        return planner.largest()
    batch, least = planner.config.train.batch_size, planner.least()
    if batch % least:
        batch = -(-batch // least) * least
        print(f"[{planner.config.stage}] batch {batch}, the next multiple of {least}", flush=True)
    return planner.plan(batch)


def main(_):
    """Prints a report for each topology and remat, or the table of all stages."""
    jax.config.update("jax_platforms", "cpu")
    options = flags.FLAGS
    if options.all == (options.config is not None):
        raise SystemExit("give either --config=configs/<stage>.py or --all")
    names = stages.NAMES if options.all else [options.config.stage]
    remats = {"on": [True], "off": [False], "both": [True, False]}.get(options.remat, [None])
    rows, began = [], time.perf_counter()
    for goal in map(target, options.topology):
        for name in names:
            config = options.config
            if options.all:
                config = importlib.import_module(f"configs.{name}").get_config(options.size)
            for remat in remats:
                plan = planned(Planner(config, goal, remat), options.all or options.largest)
                if plan is None:
                    print(f"{name} on {goal.name}: not even one example a device fits")
                    continue
                print(report(plan), flush=True)
                if plan.costs:
                    rows.append(row(plan))
    if len(rows) > 1:
        print(table(rows))
    print(f"{time.perf_counter() - began:.0f} s in all")


if __name__ == "__main__":
    config_flags.DEFINE_config_file("config")
    flags.DEFINE_list("topology", None, "what to compile for, e.g. v5e:16x16 or gpu:h100x8")
    flags.DEFINE_boolean("largest", False, "look for the largest batch that fits")
    flags.DEFINE_boolean("all", False, "a table of all stages at their largest batches")
    flags.DEFINE_string("size", "paper", "of --all")
    flags.DEFINE_enum("remat", "", ["", "on", "off", "both"], "in place of config.remat")
    flags.mark_flag_as_required("topology")
    app.run(main)

"""Compiles a stage's training step for machines that aren't there: does it fit, how fast at best?

    python launch/plan.py --config=configs/vqgan.py --topology=v5e:16x16
    python launch/plan.py --config=configs/swap.py --topology=v6e:2x2 --largest --remat=both
    python launch/plan.py --config=configs/sync.py --topology=v5e:1x1 --causes
    python launch/plan.py --all --topology=v5e:2x2,v5p:2x2x1,v6e:2x2     # a table of all stages

It needs a CPU, libtpu (`pip install 'jax[tpu]'`) and a minute for each compilation, no data and no
trained networks: all arrays are shapes (planning/abstract.py). TPU topologies: v4:2x2x1, v5e:16x16,
v5p:4x4x4 ...; what is told of them is what the TPU's compiler says, times apart, which are bounds
(costs/). `gpu:h100x8` (chips.py has the names) is an estimate: the CPU's compiler counts FLOPs and
gradients as a GPU's would, its memory and traffic are those of less fusion and of wider numbers.
What was compiled is kept (--known), so that a table that was stopped goes on.

Options of the config are given as in training: --config.train.batch_size=512. Batches are global.
Without data the recogniser's classes are 300 people; the set that config.data.resident keeps on the
devices is not counted.
"""

import concurrent.futures
import dataclasses
import os
import time
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from swaptalk_jax import command, stages
from swaptalk_jax.configs import common
from swaptalk_jax.costs import causes, count, roofline
from swaptalk_jax.errors import RunError
from swaptalk_jax.planning import ahead, kept
from swaptalk_jax.planning.abstract import get_config, upstream
from swaptalk_jax.planning.search import largest
from swaptalk_jax.planning.targets import Target, target
from swaptalk_jax.training import step

GIB = 1 << 30
# How much of a chip's memory a plan's buffers may fill. The rest: the runtime's quarter GiB (more
# on a GPU), the machine code (v5e: identity 0.20 GiB, VQGAN 0.70), and what libtpu adds to the
# temporaries while it makes that (16 and 12 % of them).
FILLED = 0.85
RUNTIME = GIB // 4


@dataclasses.dataclass(frozen=True)
class Plan:
    """A step compiled, or (costs None) refused for want of memory; used: bytes a device."""

    stage: str
    target: Target
    remat: bool
    batch: int  # global
    used: float
    costs: count.Costs | None
    causes: dict[str, causes.Cause]
    seconds: float

    @property
    def each(self):
        """Examples of the device that has the most."""
        return -(-self.batch // self.target.count)

    @property
    def fits(self):
        """Whether the compiler took it, and the chip has the memory."""
        return self.costs is not None and self.used <= self.room

    @property
    def room(self):
        """Bytes of the chip's memory that it may take."""
        whole = self.costs is not None and self.costs.memory.code and not self.target.estimate
        return room(self.target.chip, whole)

    @property
    def bound(self):
        """costs.Bound of a step."""
        return roofline.roofline(self.costs, self.target.chip, self.target.count)


class Planner:
    """Compiles one stage, at any batch, for one target. known: kept.Outcomes."""

    def __init__(self, config, goal, known, remat=None, code=False):
        self.config, self.goal = config.copy_and_resolve_references(), goal
        self.known, self.code = known, code
        if remat is not None:
            self.config.remat = remat
        if self.config.precision == "auto":
            self.config.precision = "bfloat16"  # what "auto" means there
        self.upstream = upstream(self.config.size)

    def least(self):
        """The step of the search for the largest batch: what fills all devices evenly."""
        return self.goal.count * self.config.train.accumulate

    def plan(self, batch):
        """The Plan of a global batch."""
        began, size = time.perf_counter(), common.IMAGE_SIZE[self.config.size]
        job = (self.config, self.upstream, size, self.goal, batch, self.code)
        found = self.known.get(job) or self.known.put(job, ahead.outcome(*job))
        seconds = time.perf_counter() - began
        rest = (found.used, found.costs, found.causes, seconds)
        plan = Plan(self.config.stage, self.goal, self.config.remat, batch, *rest)
        told(plan)
        return plan

    def largest(self):
        """The Plan of the largest batch that fits, or None; the next larger one was refused."""
        tried = {}

        def attempt(n):
            tried[n] = self.plan(n * self.least())
            return tried[n]

        return tried.get(largest(attempt, step.FEW, room(self.goal.chip, self.code)))


def room(chip, whole=False):
    """Bytes of a chip's memory that a plan may take. whole: its machine code is counted."""
    return chip.hbm_bytes - RUNTIME if whole else FILLED * chip.hbm_bytes


def told(plan):
    """One line of a compilation, as it ends."""
    where = f"[{plan.stage}] {plan.target.name}, remat {'on' if plan.remat else 'off'}, "
    where += f"{plan.each} a device: "
    what = f"{plan.used / GIB:.2f} of {plan.target.chip.hbm_bytes / GIB:.0f} GiB, "
    what += "fits" if plan.fits else "too large"
    print(f"{where}{what} ({plan.seconds:.0f} s)", flush=True)


def report(plan, why=False):
    """All that is known of a Plan, as text; why: with a table of causes."""
    devices, chip = plan.target.count, plan.target.chip
    lines = [
        f"{plan.stage} on {devices} x {chip.name}, batch {plan.batch} ({plan.each} a device), "
        f"remat {'on' if plan.remat else 'off'}" + (" (estimate)" if plan.target.estimate else "")
    ]
    if not plan.fits:
        wanted = f"{plan.used / GIB:.2f} GiB a device wanted, {plan.room / GIB:.2f} may be filled"
        return f"{lines[0]}\n  does not fit: {wanted}"
    c, m, b = plan.costs, plan.costs.memory, plan.bound
    lines += [
        f"memory a device  {m.total / GIB:.2f} of {chip.hbm_bytes / GIB:.0f} GiB: arguments "
        f"{m.arguments / GIB:.2f}, results elsewhere {(m.outputs - m.aliased) / GIB:.2f}, "
        f"temporary {m.temporaries / GIB:.2f}, "
        + (f"program {m.code / GIB:.2f}" if m.code else "program not known"),
        f"work a device    {c.flops / 1e12:.3f} TFLOP, {c.bytes / 1e9:.2f} GB of memory traffic",
    ]
    for kind, found in sorted(c.collectives.items()):
        lines.append(f"{kind:<17}{found.count} x, {found.bytes / 1e6:.2f} MB together")
    lines.append(
        f"a step at best   {1e3 * b.seconds:.2f} ms, bound by {b.by} (compute "
        f"{1e3 * b.compute:.2f}, memory {1e3 * b.memory:.2f}, interconnect "
        f"{1e3 * b.interconnect:.2f}): {plan.batch / b.seconds:.0f} examples/s"
    )
    in_turn, share = causes.bound(plan.causes), causes.share(plan.causes, chip)
    lines.append(
        f"kernels in turn  {1e3 * in_turn:.2f} ms at best: {100 * share:.0f} % of the peak, what "
        "remat adds left out"
    )
    lines += causes.table(plan.causes) if why else []
    if c.endless:
        lines.append(f"{c.endless} loops of unknown length are counted once")
    if c.uncounted:
        lines.append(f"not counted: {', '.join(c.uncounted)}")
    return "\n  ".join(lines)


def table(plans):
    """Markdown: a row a stage, a column a machine and remat; cells: examples a device (largest that
    fits, if that was asked for), and examples/s a device at best, with what bounds them.
    """
    found = {(plan.stage, _column(plan)): _cell(plan) for plan in plans}
    columns = list(dict.fromkeys(column for _, column in found))
    lines = [("stage", *columns), ("---",) * (len(columns) + 1)]
    for stage in dict.fromkeys(stage for stage, _ in found):
        lines.append((stage, *(found.get((stage, column), "none") for column in columns)))
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _column(plan):
    estimate = " (estimate)" if plan.target.estimate else ""
    return f"{plan.target.chip.name}{estimate}, remat {'on' if plan.remat else 'off'}"


def _cell(plan):
    rate = plan.batch / plan.target.count / plan.bound.seconds
    rate = float(f"{rate:.3g}")  # three digits, without an exponent
    return f"{plan.each:,}: {rate:,g}/s, {plan.bound.by}"


def planned(planner, search):
    """The Plan that was asked for, or None: the config's batch, or the largest."""
    return planner.largest() if search else planner.plan(planner.config.train.batch_size)


def work(planners, search, jobs):
    """Yields (planner, its Plan or None) in order, `jobs` at a time; says how long it will take."""
    began = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        found = [pool.submit(planned, planner, search) for planner in planners]
        try:
            for n, (planner, one) in enumerate(zip(planners, found, strict=True), 1):
                yield planner, one.result()
                if n < len(found):
                    left = (time.perf_counter() - began) / n * (len(found) - n) / 60
                    print(f"{n} of {len(found)} done, about {left:.0f} min left", flush=True)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def main(options):
    """Prints a report for each topology and remat, or the table of all stages."""
    if options.all == (options.config is not None):
        raise RunError("give either --config=configs/<stage>.py or --all")
    names = list(stages.registered()) if options.all else [options.config.stage]
    remats = {"on": [True], "off": [False], "both": [True, False]}.get(options.remat, [None])
    known = kept.Outcomes(Path(options.known) if options.known else None)
    planners = [
        Planner(get_config(n, options.size) if options.all else options.config, goal, known, *rest)
        for goal in [target(t) for t in options.topology]
        for n in names
        for rest in [(remat, options.code) for remat in remats]
    ]
    plans, began = [], time.perf_counter()
    for planner, plan in work(planners, options.all or options.largest, options.jobs):
        if plan is None:
            where = f"{planner.config.stage} on {planner.goal.name}"
            print(f"{where}: not even one example a device fits", flush=True)
            continue
        print(report(plan, options.causes), flush=True)
        plans += [plan] if plan.fits else []
    if len(plans) > 1:
        print(table(plans))
    print(f"{time.perf_counter() - began:.0f} s in all")


if __name__ == "__main__":
    config_flags.DEFINE_config_file("config")
    flags.DEFINE_list("topology", None, "what to compile for, e.g. v5e:16x16 or gpu:h100x8")
    flags.DEFINE_boolean("largest", False, "look for the largest batch that fits")
    flags.DEFINE_boolean("all", False, "a table of all stages at their largest batches")
    flags.DEFINE_boolean("causes", False, "what a step's time and traffic are for, in a table")
    flags.DEFINE_boolean("code", False, "make a TPU's machine code too, and tell its size: minutes")
    flags.DEFINE_string("size", "paper", "of --all")
    flags.DEFINE_enum("remat", "", ["", "on", "off", "both"], "in place of config.remat")
    flags.DEFINE_integer("jobs", os.cpu_count() or 1, "compilations at a time; each takes 2-4 GiB")
    flags.DEFINE_string("known", "runs/plan.jsonl", 'what was compiled before is kept; "": nowhere')
    flags.mark_flag_as_required("topology")
    command.start("plan", main, stopped="stopped; the same command goes on")

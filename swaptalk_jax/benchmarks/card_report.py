"""What launch/gpu_check.py measured, as a section of docs/performance.md. Imports no JAX."""

import textwrap

from swaptalk_jax.costs import chips, roofline

STAGES = ("identity", "vqgan", "expert", "swap", "sync")
HEAD = ("stage", "batch", "ms a step (least, most)", "examples/s", "of peak", "bound, ms")
HEAD += ("of the bound", "input", "compiling, s", "largest batch", "examples/s there")
NONE = "-"


def section(results, chip=""):
    """Markdown of {"size", "device", "rows": {name: values}}, see benchmarks/card.py for values.

    chip: the name of a data sheet in costs/chips.py; "": that of the device. Without a data sheet
    shares are of the matrix product that was measured, and there are no bounds.
    """
    rows, device = results["rows"], results["device"] or "no device"
    sheet = chips.find(chip or device)
    peak = sheet.peak_flops if sheet else rows.get("peak", {}).get("matmul")
    lines = [f"## {device}", "", _about(results, sheet), ""]
    lines += [_line(HEAD), _line(["---"] * len(HEAD))]
    lines += [_line(_stage(stage, rows, sheet, peak)) for stage in STAGES]
    lines += ["", *_card(rows.get("peak", {}), sheet), *_infer(rows.get("infer", {}))]
    missing = [f"- `{name}`: {_why(row)}" for name, row in rows.items() if row["state"] != "done"]
    if missing:
        lines += ["", "Rows that did not end:", "", *missing]
    return "\n".join(lines) + "\n"


def _about(results, sheet):
    """How the numbers came about, as one paragraph."""
    versions = {row["jax"] for row in results["rows"].values() if "jax" in row}
    dtypes = {row["precision"] for row in results["rows"].values() if "precision" in row}
    shares = f"of {sheet.name}'s data sheet" if sheet else "of the matrix product measured below"
    command = f"`bash launch/gpu_check.sh --size={results['size']}`"
    text = f"""{command}; one device, JAX {", ".join(sorted(versions)) or NONE},
    {", ".join(sorted(dtypes)) or NONE}. Random networks and records of true sizes stand for trained
    networks and data. Times are medians of five turns. Shares of peak are {shares}. FLOPs are the
    plan's; with an asterisk they are those that XLA counts in the program. A bound is the plan's
    estimate: the longer of arithmetic and memory traffic. The traffic is that of a CPU's program,
    which moves more than a GPU's, so a bound by memory may be beaten."""
    return textwrap.fill(" ".join(text.split()), 100)


def _stage(stage, rows, sheet, peak):
    """Cells of a stage's row."""
    step, plan, top = (rows.get(f"{what}-{stage}", {}) for what in ("step", "plan", "largest"))
    times, batch = step.get("step"), step.get("batch")
    flops, mark = (plan["flops"], "") if "flops" in plan else (step.get("flops"), "\\*")
    share = f"{flops / times[1] / peak:.1%}{mark}" if times and flops and peak else NONE
    cells = [stage, batch or NONE, _times(times), _rate(batch, times), share]
    bound = None
    if sheet and "flops" in plan:
        compute, memory = plan["flops"] / sheet.peak_flops, plan["bytes"] / sheet.hbm_bandwidth
        bound = roofline.Bound(compute, memory, 0.0)
    cells += [f"{1e3 * bound.seconds:.4g}, {bound.by}" if bound else NONE]
    cells += [f"{bound.seconds / times[1]:.0%}" if bound and times else NONE]
    cells += [f"{step['input']:.1%}" if "input" in step else NONE]
    cells += [f"{step['compiling']:.0f}" if "compiling" in step else NONE]
    return [*cells, _largest(top), _rate(top.get("ran"), top.get("step"))]


def _largest(top):
    """The largest batch, and how well it is known."""
    if "ran" in top:
        return f"{top['ran']}" if top.get("whole") else f"at least {top['ran']}"
    return f"{top['largest']} (did not run)" if top.get("largest") else NONE


def _card(peak, sheet):
    if "matmul" in peak:
        share = f" ({peak['matmul'] / sheet.peak_flops:.0%} of the data sheet)" if sheet else ""
        rate = f"{peak['matmul'] / 1e12:.3g} TFLOP/s"
        yield f"- A product of bfloat16 matrices of side {peak['size']}: {rate}{share}."
    if "copy" in peak:
        share = f" ({peak['copy'] / sheet.hbm_bandwidth:.0%} of the data sheet)" if sheet else ""
        yield f"- A copy of float32: {peak['copy'] / 1e9:.4g} GB/s, read and written{share}."


def _infer(row):
    if "edit" in row:
        whole, networks = (
            f"{median:.1f} frames/s ({least:.1f} to {most:.1f})"
            for least, median, most in (row["edit"], row["networks"])
        )
        yield f"- Inference at {row['size']} px, {row['batch']} frames at once: {whole} with faces"
        yield f"  cut out and pasted back, {networks} by the networks alone."
        yield "  Reading and writing of video, landmarks and hearing are not in it. First frames"
        yield f"  came after {row['starting']:.0f} s."


def _times(times):
    if not times:
        return NONE
    least, median, most = (1e3 * t for t in times)
    return f"{median:.4g} ({least:.4g}, {most:.4g})"


def _rate(batch, times):
    return f"{batch / times[1]:.4g}" if batch and times else NONE


def _why(row):
    return f"{row['state']}, {row['why']}" if row.get("why") else row["state"]


def _line(cells):
    return f"| {' | '.join(str(cell) for cell in cells)} |"

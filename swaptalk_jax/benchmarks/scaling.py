"""Weak and strong scaling of a stage's step, beside what theory says of it.

    python -m swaptalk_jax.benchmark --config=configs/sync.py:micro --scaling

Strong scaling cuts one batch over more and more devices; weak scaling gives each device a batch of
the same size. The first steps' losses tell that the global batch means the same everywhere; FLOPs
and collective bytes, as the compiled program has them, that nothing is computed or sent twice.
Simulated devices of a CPU share its cores, so their times tell nothing: what is checked there are
losses, FLOPs and bytes.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np

from data_pipelines import files
from data_pipelines.html import markup
from swaptalk_jax.costs import chips
from swaptalk_jax.errors import RunError
from swaptalk_jax.training.setup import Trainer

SIMULATED = 8  # devices of a CPU
PROCESSES = (2, 4)  # of one device each
COMPARED = 3  # steps whose losses are compared
# What a row may be off: losses by rounding (sums in another order), FLOPs by what a device does for
# itself, bytes by the few numbers that metrics and running averages add to the gradients.
LOSS, FLOPS, BYTES = 1e-3, 0.1, 0.1


def measure(config, devices, steps, batch, kind):
    """One row: {devices, processes, kind, batch, losses, seconds, flops, bytes, gradient_bytes}.

    seconds: median of a step's, over `steps` steps on one batch. flops: a device's. bytes: of all
    collectives' payloads; gradient_bytes: 4 x the number of trained parameters.
    """
    config = config.copy_and_resolve_references()
    config.train.batch_size = config.train.eval_batch_size = batch
    run = Trainer(config, devices)
    state, stream, losses, times = run.new_state(), run.batches.training(0), [], []
    run.compile(state)
    for _ in range(COMPARED):
        state, metrics = run.update(state, next(stream))
        losses.append(float(metrics["loss"]))
    held = next(stream)
    for _ in range(steps):
        began = time.perf_counter()
        state, metrics = run.update(state, held)
        jax.block_until_ready(metrics)
        times.append(time.perf_counter() - began)
    costs, constant = run.costs(), config.optimizer.get("constant", ())
    trained = {k: v for k, v in run.shapes.params.items() if k not in constant}
    return {
        "devices": run.mesh.size,
        "processes": jax.process_count(),
        "kind": kind,
        "batch": batch,
        "losses": losses,
        "seconds": float(np.median(times)),
        "flops": costs.flops,
        "bytes": sum(found.bytes for found in costs.collectives.values()),
        "gradient_bytes": 4 * sum(x.size for x in jax.tree.leaves(trained)),
    }


def rows(config, devices, most, steps):
    """Both kinds of scaling on these devices: a row each, or one where both are the same.

    The batch of strong scaling is the config's, raised to a multiple of `most`, the largest number
    of devices, as theory is of devices that all do the same; weak scaling gives each device its
    share of that.
    """
    batch = -(-config.train.batch_size // most) * most
    found = [measure(config, devices, steps, batch, "strong")]
    if len(devices) < most:
        found.append(measure(config, devices, steps, batch // most * len(devices), "weak"))
    return found


def write_rows(config, most, steps, path):
    """Measures as one of several processes; the first of them writes the rows, as JSON."""
    found = rows(config, jax.devices(), most, steps)
    if jax.process_index() == 0:
        files.replace(path, json.dumps(found).encode())


def simulate(config):
    """Gives a CPU that measures alone its SIMULATED devices; before JAX has begun."""
    if not config.distributed and "JAX_NUM_CPU_DEVICES" not in os.environ:
        jax.config.update("jax_num_cpu_devices", SIMULATED)


def counts():
    """Numbers of devices to measure: powers of two up to all."""
    return [2**i for i in range(jax.device_count().bit_length()) if 2**i <= jax.device_count()]


def run(config, steps, arguments, out):
    """Measures, prints the table and writes scaling.json and scaling.html into `out`.

    arguments: of this command line, for the processes that measure. Returns the checks that failed.
    """
    most = jax.device_count()
    found = []
    for n in counts():
        found += rows(config, jax.devices()[:n], most, steps)
        print(f"  {n} of {most} devices measured", flush=True)
    if jax.default_backend() == "cpu":
        for n in PROCESSES:
            found += _processes(n, most, arguments)
            print(f"  {n} of {PROCESSES[-1]} processes measured", flush=True)
    _compare(found)
    kind = jax.devices()[0].device_kind
    title = f"{config.stage}:{config.size} on {kind}"
    table = _table(found, chips.find(kind))
    print("\n".join([title, *("  ".join(cell.rjust(11) for cell in row) for row in table)]))
    failed = [failure for row in found for failure in row["failed"]]
    for line in failed or ["losses, FLOPs and bytes are what theory says"]:
        print(line)
    files.replace(out / "scaling.json", json.dumps(found, indent=1).encode())
    files.replace(out / "scaling.html", _page(title, table, found, failed).encode())
    print(f"{out / 'scaling.html'} draws it")
    return failed


def _processes(count, most, arguments):
    """Rows of so many processes with one device each, measured by launch/local.py's children."""
    launcher = Path(__file__).resolve().parents[2] / "launch" / "local.py"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.json"
        command = [sys.executable, "-m", "swaptalk_jax.benchmark", *arguments]
        command += [f"--scaling_rows={path}", f"--scaling_most={most}"]
        options = [f"--processes={count}", "--devices_per_process=1", "--restarts=0"]
        environment = {k: v for k, v in os.environ.items() if k != "JAX_NUM_CPU_DEVICES"}
        done = subprocess.run(
            [sys.executable, str(launcher), *options, "--", *command],
            env=environment,
            capture_output=True,
            text=True,
        )
        if not path.exists():
            raise RunError(f"{count} processes failed:\n{done.stdout}{done.stderr}", 1)
        return json.loads(path.read_text())


def _compare(found):
    """Adds to each row its efficiency, its shares of theory, and which checks failed."""
    alone = {row["kind"]: row for row in reversed(found) if row["devices"] == 1}
    alone["weak"] = alone.get("weak", alone["strong"])
    # What a step costs whatever its batch, as Muon's matrix products do, every device computes.
    (few, least), (many, most) = (
        (alone[k]["batch"], alone[k]["flops"]) for k in ("weak", "strong")
    )
    each = (most - least) / (many - few) if many > few else most / many
    constant = most - each * many
    for row in found:
        n, one = row["devices"], alone["strong"]
        first = alone[row["kind"]]
        ideal = first["seconds"] / n if row["kind"] == "strong" else first["seconds"]
        row["efficiency"] = ideal / row["seconds"]
        theory = constant + each * row["batch"] / n
        row["flops_of_theory"] = row["flops"] / theory
        row["bytes_of_theory"] = row["bytes"] / row["gradient_bytes"] if n > 1 else None
        same = row["batch"] == one["batch"]
        gap = np.abs(np.array(row["losses"]) / one["losses"] - 1.0).max() if same else None
        row["loss_gap"] = None if gap is None else float(gap)
        checks = {
            f"losses differ by {row['loss_gap'] or 0:.1e}": same and gap > LOSS,
            f"FLOPs are {row['flops_of_theory']:.2f} of theory": (
                abs(row["flops_of_theory"] - 1.0) > FLOPS
            ),
            f"collective bytes are {row['bytes_of_theory'] or 0:.2f} of the gradients'": (
                n > 1 and abs(row["bytes_of_theory"] - 1.0) > BYTES
            ),
        }
        where = f"{row['kind']}, {n} devices, {row['processes']} processes"
        row["failed"] = [f"CHECK {where}: {text}" for text, wrong in checks.items() if wrong]


def _table(found, chip):
    """Rows of text, the first one names the columns."""
    names = ["scaling", "devices", "processes", "batch", "ms/step", "examples/s", "efficiency"]
    names += ["GFLOP/dev", "of theory", "MB sent", "of theory", "loss gap"]
    table = [names + (["of peak"] if chip else [])]
    for row in found:
        share, gap = row["bytes_of_theory"], row["loss_gap"]
        cells = [row["kind"], str(row["devices"]), str(row["processes"]), str(row["batch"])]
        cells += [f"{row['seconds'] * 1e3:.1f}", f"{row['batch'] / row['seconds']:.1f}"]
        cells += [f"{row['efficiency']:.2f}", f"{row['flops'] / 1e9:.4g}"]
        cells += [f"{row['flops_of_theory']:.3f}", f"{row['bytes'] / 1e6:.4g}"]
        cells += ["-" if share is None else f"{share:.3f}", "-" if gap is None else f"{gap:.1e}"]
        if chip:
            cells.append(f"{row['flops'] / row['seconds'] / chip.peak_flops:.1%}")
        table.append(cells)
    return table


def _page(title, table, found, failed):
    """The plots and the table as one HTML document."""
    plots = [
        ("Efficiency of time", "efficiency"),
        ("FLOPs of a device, of theory", "flops_of_theory"),
        ("Collective bytes, of the gradients'", "bytes_of_theory"),
    ]
    cards = "".join(_plot(name, found, field) for name, field in plots)
    verdict = failed or ["Losses, FLOPs and bytes are what theory says."]
    lines = "".join(f"<p>{markup.text(line)}</p>" for line in verdict)
    heads, *body = (["".join(f"<td class=n>{markup.text(c)}" for c in row)] for row in table)
    cells = "".join(f"<tr>{row[0]}" for row in [heads, *body])
    note = "Simulated devices share the cores of one CPU: their times tell nothing. "
    text = note if jax.default_backend() == "cpu" else ""
    head = f"<h1>Scaling: {markup.text(title)}</h1><p>{text}Dashed: ideal.</p>{lines}"
    return markup.page(
        f"SwapTalk scaling: {title}",
        [head, f"<div class='grid narrow'>{cards}</div>", f"<table>{cells}</table>"],
    )


def _plot(name, found, field):
    """An SVG: the field over the number of devices, a line for each kind and way to have them."""
    most = max(row["devices"] for row in found)
    drawn = [row for row in found if row[field] is not None]
    high = max(1.2, *(row[field] for row in drawn))
    lines = [
        f"<line x1=30 x2=310 y1={_y(1.0, high):.1f} y2={_y(1.0, high):.1f} stroke='#98a2b3' "
        "stroke-dasharray='3 3' />"
    ]
    ways = sorted({(row["kind"], row["processes"] > 1) for row in drawn})
    colours = dict(zip(ways, ("#3538cd", "#f79009", "#067647", "#b42318"), strict=False))
    for i, way in enumerate(ways):
        own = [row for row in drawn if (row["kind"], row["processes"] > 1) == way]
        points = sorted({row["devices"]: row[field] for row in own}.items())
        xy = [(30 + 280 * np.log2(n) / max(1, np.log2(most)), _y(v, high)) for n, v in points]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in xy)
        label = f"{way[0]}, {'processes' if way[1] else 'devices'}"
        lines.append(f"<polyline points='{line}' fill=none stroke='{colours[way]}' />")
        lines += [f"<circle cx={x:.1f} cy={y:.1f} r=2.5 fill='{colours[way]}' />" for x, y in xy]
        lines.append(f"<text x=34 y={164 + 12 * i} fill='{colours[way]}'>{label}</text>")
    for n in sorted({row["devices"] for row in drawn}):
        x = 30 + 280 * np.log2(n) / max(1, np.log2(most))
        lines.append(f"<text x={x:.1f} y=148 text-anchor=middle>{n}</text>")
    lines.append(f"<text x=26 y={_y(1.0, high) + 4:.1f} text-anchor=end>1</text>")
    lines.append("<text x=26 y=138 text-anchor=end>0</text>")
    return (
        "<div class=card><svg viewBox='0 0 320 205' font-size=11 fill='#667085'>"
        f"<text x=4 y=12 fill='#1d2330'>{markup.text(name)}</text>{''.join(lines)}</svg></div>"
    )


def _y(value, high):
    return 135 - 110 * value / high

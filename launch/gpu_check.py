"""What the card at hand makes of training and inference, beside the plan's bound, in minutes.

    bash launch/gpu_check.sh --minutes=8 --wheels=wheels    # sees to its needs first
    python launch/gpu_check.py --minutes=8

Each row is a process of its own with a time of its own (swaptalk_jax.benchmark --card): one that
fails, hangs or wants too much memory costs its row, and the row says why. The most important ones
come first; the plan's counts are made on the CPU meanwhile. What stands is written after each row:
results.json, and section.md for docs/performance.md. The same command goes on where it was stopped.

Without arguments for pip: standard library only. Exit codes: 0 done, or the time is over; 1 no row
was measured; 78 refused; 130 Ctrl-C.
"""

import argparse
import ast
import importlib.util
import json
import os
import re
import signal
import sys
import time
from pathlib import Path

from gpu_check_rows import CARD, CPU, ROOT, Measurement  # beside this file

REFUSED, STOPPED = 78, 130
MINUTES = 8.0  # that the rows' times below are for
LEAST = 10.0  # seconds below which no row is begun
END = 3.0  # seconds that are kept for writing
GIVEN = ("jax", "flax", "optax", "numpy")  # what the machine has to bring
# Names of modules that are not those of their packages.
MODULES = {"absl-py": "absl", "opencv-python": "cv2", "pillow": "PIL"}
MODULES |= {"orbax-checkpoint": "orbax.checkpoint"}


def requirements():
    """What setup.py's CORE asks for beside GIVEN, as pip reads it."""
    tree = ast.parse((ROOT / "setup.py").read_text())
    core = next(
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and node.targets[0].id == "CORE"
    )
    return [line for line in core if package(line) not in GIVEN]


def package(requirement):
    """The name in a requirement."""
    return re.match(r"[\w.\-]+", requirement)[0]


def absent(names):
    """Those of the requirements (or names) whose module this Python cannot find."""
    return [name for name in names if not _found(name)]


def _found(name):
    module = MODULES.get(package(name), package(name).replace("-", "_"))
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # the package around it
        return False


class Results:
    """The rows measured, kept in a folder. values: {name: {... , state, why, took}}.

    state: done; failed (with `why`); cut (its own time was over); late (the command's was).
    """

    def __init__(self, folder, size):
        self.folder, self.size, self.rows, self.device = folder, size, {}, None
        if self.path.exists():
            known = json.loads(self.path.read_text())
            self.device, self.rows = known["device"], known["rows"]

    @property
    def path(self):
        """The file."""
        return self.folder / "results.json"

    def keep(self, name, values, chip):
        """Takes a row and writes both files. Rows of another card than this one are dropped."""
        device = values.get("device")
        if device and not name.startswith("plan"):
            if self.device not in (None, device):
                print(f"[card] rows of {self.device} are dropped: this is {device}", flush=True)
                self.rows = {n: row for n, row in self.rows.items() if n.startswith("plan")}
            self.device = device
        self.rows[name] = values
        whole = {"size": self.size, "device": self.device, "rows": self.rows}
        _write(self.path, json.dumps(whole, indent=1) + "\n")
        from swaptalk_jax.benchmarks import card_report

        _write(self.folder / "section.md", card_report.section(whole, chip))

    def open(self, rows):
        """Those of the rows that are to be measured: new ones first, then what failed."""
        left = [row for row in rows if self.rows.get(row.name, {}).get("state") != "done"]
        return sorted(left, key=lambda row: row.name in self.rows)


def run(lanes, results, options, last):
    """Measures the rows of all lanes, one of each at a time, until `last` (time.monotonic)."""
    queues = [results.open(lane) for lane in lanes]
    running = [None for _ in lanes]
    try:
        while any(running) or any(queues):
            for i, queue in enumerate(queues):
                if running[i] is None and queue and last - time.monotonic() > LEAST:
                    row = queue.pop(0)
                    seconds = row.seconds * max(1.0, options.minutes / MINUTES)
                    running[i] = Measurement(row, seconds, last, options)
                elif running[i] is None:
                    queue.clear()  # the time is over
                elif values := running[i].poll():
                    told(running[i].row, values)
                    results.keep(running[i].row.name, values, options.chip)
                    running[i] = None
            time.sleep(0.05)
    finally:
        for one in filter(None, running):
            one.end()
            stopped = {"state": "late", "why": "stopped"}
            results.keep(one.row.name, one.values() | stopped, options.chip)


def told(row, values):
    """One line of a row that has ended."""
    why = f": {values['why']}" if values["why"] else ""
    print(f"[card] {row.name}: {values['state']} after {values['took']} s{why}", flush=True)


def main(argv=None):
    """Measures what is left to measure; returns the exit code."""
    options = parse(argv)
    if options.requirements or options.absent:
        needed = requirements()
        for line in absent(needed) if options.absent else needed:
            print(line)
        return 0
    if missing := absent(GIVEN):
        return _refused(f"{sys.executable} has no {', '.join(missing)}; PYTHON=... names another")
    last = time.monotonic() + 60 * options.minutes - options.spent - END
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        results = Results(options.out, options.size)
    except (ValueError, KeyError):
        return _refused(f"{options.out}/results.json: cannot be read; name another --out")
    lanes = [
        [r for r in lane if not options.only or r.name in options.only] for lane in (CARD, CPU)
    ]
    code = 0
    try:
        run(lanes, results, options, last)
    except KeyboardInterrupt:
        code = STOPPED
    left = len(results.open([*lanes[0], *lanes[1]]))
    print(f"[card] {options.out / 'section.md'} and results.json have what stands", flush=True)
    if left:
        print(f"[card] {left} rows are left; the same command goes on", flush=True)
    if not any(row["state"] == "done" for row in results.rows.values()):
        code = code or 1
    return code


def parse(argv):
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--minutes", type=float, default=MINUTES, help="for all of it; default: 8")
    add("--out", type=Path, help="folder, to which the size is added; default: runs/card")
    add("--size", default="paper", help="of the configs: paper, open, small, tiny, micro")
    add("--only", type=lambda text: text.split(","), help="rows, such as step-sync,infer")
    add("--chip", default="", help="compare with this data sheet (costs/chips.py): h100 ...")
    add("--memory", type=float, default=0.0, help="GiB that the largest batch may fill")
    add("--spent", type=float, default=0.0, help="seconds of the minutes that are gone")
    add("--requirements", action="store_true", help="print what is needed beside JAX, and end")
    add("--absent", action="store_true", help="print what of that is not here, and end")
    options = parser.parse_args(argv)
    options.out = (options.out or ROOT / "runs" / "card").absolute() / options.size
    names = [row.name for row in (*CARD, *CPU)]
    if strange := sorted(set(options.only or ()) - set(names)):
        parser.exit(REFUSED, f"[card] no row {strange[0]}; the rows: {', '.join(names)}\n")
    return options


def _refused(line):
    print(f"[card] {line}", file=sys.stderr, flush=True)
    return REFUSED


def _write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_text(text)
    os.replace(part, path)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main())

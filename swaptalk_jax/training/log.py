"""What a run leaves to look at: metrics.jsonl, TensorBoard files and picture grids."""

import json
from pathlib import Path

import jax
import numpy as np
from tensorboardX import SummaryWriter

from data_pipelines.files import replace
from swaptalk_jax.pictures import save_picture


class Writer:
    """Writes scalars and pictures of a run below `workdir`; only the first process writes.

    `start` is the step that the run goes on from: lines of metrics.jsonl past it are dropped, so
    an interrupted run's file equals an uninterrupted one's.
    """

    def __init__(self, workdir, start=0):
        self.active = jax.process_index() == 0
        if not self.active:
            return
        self.workdir = Path(workdir)
        self.workdir.mkdir(parents=True, exist_ok=True)
        path = self.workdir / "metrics.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        kept = [line for line in lines if _step(line) is not None and _step(line) <= start]
        replace(path, "".join(f"{line}\n" for line in kept).encode())
        self.lines = path.open("a")
        self.speeds = (self.workdir / "speed.jsonl").open("a")
        self.board = SummaryWriter(str(self.workdir / "tensorboard"), purge_step=start + 1)

    def scalars(self, step, values):
        """One line of metrics.jsonl and TensorBoard scalars; values are Python floats."""
        if not self.active:
            return
        self.lines.write(json.dumps({"step": step, **values}) + "\n")
        self.lines.flush()
        for name, value in values.items():
            self.board.add_scalar(name, value, step)

    def speed(self, step, values):
        """How fast steps went: to speed.jsonl, as metrics.jsonl is the same in every run."""
        if not self.active or not values:
            return
        self.speeds.write(json.dumps({"step": step, **values}) + "\n")
        self.speeds.flush()
        for name, value in values.items():
            self.board.add_scalar(f"speed/{name}", value, step)

    def histogram(self, step, name, values):
        """TensorBoard's histogram of an array's values."""
        if self.active:
            self.board.add_histogram(name, np.asarray(values).reshape(-1), step)

    def picture(self, step, name, grid):
        """A grid uint8 [h w 3] as pictures/<name>_<step>.png and into TensorBoard."""
        if not self.active:
            return
        save_picture(self.workdir / "pictures" / f"{name}_{step:07d}.png", grid)
        self.board.add_image(name, grid, step, dataformats="HWC")

    def close(self):
        """Flushes everything."""
        if self.active:
            self.lines.close()
            self.speeds.close()
            self.board.close()


def _step(line):
    """Step of a line of metrics.jsonl; None for a line cut short by a kill."""
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError):
        return None

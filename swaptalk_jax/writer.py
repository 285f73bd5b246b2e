"""What a run leaves to look at: metrics.jsonl, TensorBoard files and picture grids."""

import json
from pathlib import Path

import cv2
import jax
import numpy as np
from tensorboardX import SummaryWriter

from data_pipelines import files


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


class Trace:
    """jax.profiler's trace of the steps that the config asks for, in <workdir>/profile.

    every: config.train. Open it with TensorBoard's profile plugin, xprof or Perfetto.
    """

    def __init__(self, workdir, every):
        self.folder, self.first = Path(workdir) / "profile", every.profile_step
        self.end = self.first + every.profile_steps if self.first else 0
        self.on = False

    def at(self, step):
        """Starts before the first of the steps, stops after the last."""
        if self.end and step == self.first:
            jax.profiler.start_trace(str(self.folder))
            self.on = True
        elif step == self.end:
            self.close()

    def close(self):
        """Stops, if it is on."""
        if self.on:
            jax.profiler.stop_trace()
            self.on = False
            print(f"profile of steps {self.first} to {self.end - 1}: {self.folder}", flush=True)


def _step(line):
    """Step of a line of metrics.jsonl; None for a line cut short by a kill."""
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError):
        return None


def replace(path, data):
    """Writes bytes to `path` whole or not at all; concurrent writers never share a file."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.replacing(path) as part:
        part.write_bytes(data)


def save_picture(path, image):
    """Writes uint8 [h w 3] RGB as PNG or JPEG by the path's suffix."""
    ok, data = cv2.imencode(Path(path).suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    if not ok:
        raise ValueError(f"{path}: cannot encode a picture of shape {image.shape}")
    replace(path, data.tobytes())


def grid(rows, scale_to=96):
    """Rows of images float [-1, 1] or uint8 [n h w 3] -> one uint8 picture, a row each.

    Small images are enlarged without smoothing to about `scale_to` pixels.
    """
    rows = [to_uint8(np.asarray(row)) for row in rows]
    factor = max(1, scale_to // rows[0].shape[1])
    return (
        np.concatenate([np.concatenate(list(row), axis=1) for row in rows])
        .repeat(factor, axis=0)
        .repeat(factor, axis=1)
    )


def to_uint8(image):
    """float [-1, 1] -> uint8, clipped and rounded; uint8 passes."""
    if image.dtype == np.uint8:
        return image
    return np.clip(np.rint((np.asarray(image, np.float32) + 1.0) * 127.5), 0, 255).astype(np.uint8)

"""Records of the sizes of real ones and no meaning, for measuring how fast they are read."""

import pathlib

import cv2
import numpy as np

from data_pipelines.records import kinds, shards

AUDIO_WIDTH, EMBEDDING = 80, 512  # log-mel, and the paper's recogniser
CELL = 16  # pixels of a side of a cell of codes, at the paper's size
FRAMES = 250  # of a clip: 10 s
KINDS = ("frames", "codes", "swaps")  # what training reads


def write(root: pathlib.Path, size: int, count: int = 64, written: tuple[str, ...] = KINDS) -> None:
    """Writes `count` records of each kind of `written`, of the sizes of real ones.

    size: pixels of a side of the pictures; grids of codes follow it.
    """
    rng = np.random.default_rng(0)
    grid = (size // CELL, size // CELL)
    known = {"size": size, "identities": ["", ""], "fingerprint": "", "grid": grid}
    known |= {"audio": "log_mel", "audio_width": AUDIO_WIDTH, "embedding": EMBEDDING}
    for kind in written:
        made = shards.Shards(root, kind, known)
        made.write("train", 0, (_record(kind, known, rng) for _ in range(count)))
        made.publish({"train": 1})


def picture(size: int, rng: np.random.Generator) -> np.ndarray:
    """uint8 [size size 3]: noise of several scales, which as JPEG takes about a face's bytes."""
    image = np.full((size, size, 3), 128.0)
    for k in (2, 4, 6):
        noise = rng.normal(0, 6 * k, (max(1, size >> k),) * 2 + (3,))
        image = image + cv2.resize(noise, (size, size), interpolation=cv2.INTER_CUBIC)
    return image.clip(0, 255).astype(np.uint8)


def _record(kind, known, rng):
    """One record, random where its bytes matter."""
    record = kinds.blank(kind, known, frames=FRAMES)
    for name, value in record.items():
        if name == "image":
            record[name] = kinds.encode_image(picture(known["size"], rng))
        elif getattr(value, "ndim", 0) and value.dtype == np.uint16:
            record[name] = rng.integers(0, 2048, value.shape, np.uint16)
    return record

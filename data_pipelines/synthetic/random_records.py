"""Record sets of random values with the sizes of real ones, to measure speed without data."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from data_pipelines.records import kinds, shards

FRAMES = 250  # of a clip: 10 s


def write(
    root: pathlib.Path,
    sizes: Mapping[str, Any],
    codes: int = 2048,
    count: int = 64,
    wanted: Sequence[str] = ("frames", "codes", "swaps"),
) -> None:
    """Writes `count` records of each of the `wanted` kinds, as the split train of sets in `root`.

    sizes: `size` of the pictures, `grid` of codes, `audio_width` and `embedding`, as the metadata
    of a set has them. codes: numbers of codes are below it. Embeddings have length 1.
    """
    rng = np.random.default_rng(0)
    known = dict(sizes) | {"identities": ["", ""], "fingerprint": "", "audio": "log_mel"}
    for kind in wanted:
        made = shards.Shards(root, kind, known)
        made.write("train", 0, (_record(kind, known, codes, rng) for _ in range(count)))
        made.publish({"train": 1})


def picture(size: int, rng: np.random.Generator) -> np.ndarray:
    """uint8 [size size 3]: noise of several scales, which as JPEG takes about a face's bytes."""
    image = np.full((size, size, 3), 128.0)
    for k in (2, 4, 6):
        noise = rng.normal(0, 6 * k, (max(1, size >> k),) * 2 + (3,))
        image = image + cv2.resize(noise, (size, size), interpolation=cv2.INTER_CUBIC)
    return image.clip(0, 255).astype(np.uint8)


def _record(kind, known, codes, rng):
    """One record, random where its bytes matter."""
    record = kinds.blank(kind, known, FRAMES)
    for name, value in record.items():
        if name == "image":
            record[name] = kinds.encode_image(picture(known["size"], rng))
        elif getattr(value, "ndim", 0) and value.dtype == np.uint16:
            record[name] = rng.integers(0, codes, value.shape, np.uint16)
        elif getattr(value, "ndim", 0) and np.issubdtype(value.dtype, np.floating):
            drawn = rng.standard_normal(value.shape, np.float32)
            drawn = drawn if value.ndim > 1 else drawn / np.linalg.norm(drawn)
            record[name] = drawn.astype(value.dtype)
    return record

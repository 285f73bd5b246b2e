"""Files that appear whole or not at all."""

import contextlib
import os
import pathlib
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from data_pipelines import files


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """A new name beside `path` to write to; what stands there at the end of `with` becomes `path`.

    Nothing is left behind when it ends by an exception. The name is random: neither two processes
    nor two machines ever share it.
    """
    path = pathlib.Path(path)
    part = path.with_name(f".{uuid.uuid4().hex}-{path.name}")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def replace_text(path: str | os.PathLike, text: str) -> None:
    """Writes a text file in UTF-8."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")


def replace_arrays(path: str | os.PathLike, **arrays: np.ndarray) -> None:
    """Writes arrays as .npz."""
    with replacing(path) as part, part.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]  # newer NumPy: allow_pickle


def replace(path: str | os.PathLike, data: bytes) -> None:
    """Writes bytes to `path` whole or not at all; concurrent writers never share a file."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.replacing(path) as part:
        part.write_bytes(data)

"""How a file of weights is opened: within bounds of memory, and with errors of one line."""

import contextlib
import os
import pickle
import stat
import struct
import zipfile
import zlib
from pathlib import Path

from swaptalk_jax.errors import CheckpointError

LARGEST = 16 << 30  # bytes of a file; the largest network that is read here has 3 GB
# Tensors may share values, so that they are larger together than their file: tied weights.
SHARING, SLACK = 4, 1 << 20
# What Unpickler, zipfile, struct, protobuf, FlatBuffers and NumPy say of bytes without sense.
NONSENSE = (
    *(ArithmeticError, AttributeError, LookupError, MemoryError, TypeError, ValueError),
    *(EOFError, RuntimeError, pickle.UnpicklingError, struct.error, zipfile.BadZipFile),
    zlib.error,
)


@contextlib.contextmanager
def reading(path, kind, largest=LARGEST):
    """An open binary file, for a reader of files of a kind ("ONNX file").

    Raises CheckpointError, one line with the path, for whatever goes wrong inside: the file is
    absent, no plain file, larger than `largest` bytes, or not whole; and what the reader itself
    says of it.
    """
    try:
        # O_NONBLOCK: opening a named pipe would wait for a writer.
        with os.fdopen(os.open(Path(path), os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise CheckpointError("cannot be read (not a plain file)")
            if size(file) > largest:
                raise CheckpointError(
                    f"has {size(file) / 2**30:.1f} GiB, too large for what is read here as {kind} "
                    f"(at most {largest / 2**30:g} GiB)"
                )
            yield file
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error})") from error
    except NONSENSE as error:
        raise CheckpointError(
            f"{path}: not a whole {kind}; get the file again "
            f"({type(error).__name__}: {line(error, 100)})"
        ) from error


def size(file):
    """Bytes of an open file."""
    return os.fstat(file.fileno()).st_size


def check_sharing(filled, held):
    """Refuses tensors that fill many times the bytes that the file holds.

    Raises CheckpointError.
    """
    if filled > SHARING * held + SLACK:
        raise CheckpointError(
            f"its tensors would fill {filled} bytes, but the file holds {held}; save copies of "
            "the tensors, not views"
        )


def line(text, longest=160):
    """Text out of a file as a part of one line: no line breaks, no control characters."""
    shown = "".join(c if c.isprintable() else "?" for c in str(text)[:longest])
    return shown + ("..." if len(str(text)) > longest else "")

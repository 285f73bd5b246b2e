"""What several test files share."""

import os
import signal
import tempfile

import pytest
from places import ROOT

# Shells start what runs in the background deaf to Ctrl-C; all that tests start would be deaf too.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config):
    """All processes of a run share what XLA compiled: many tests train the same small networks."""
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:  # also that of a worker's parent
        return
    folder = tempfile.TemporaryDirectory(prefix="compiled-")
    config.add_cleanup(folder.cleanup)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = folder.name
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")


@pytest.fixture(scope="session")
def shared_data():
    """Folder of real clips beside the project on development machines; skips where absent."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no real clips beside the project (../shared/data)")
    return folder

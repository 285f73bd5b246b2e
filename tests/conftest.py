"""What several test files share."""

import signal

import pytest
from places import ROOT

# Shells start what runs in the background deaf to Ctrl-C; all that tests start would be deaf too.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared_data():
    """Folder of real clips beside the project on development machines; skips where absent."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no real clips beside the project (../shared/data)")
    return folder

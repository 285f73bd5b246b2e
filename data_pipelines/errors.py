"""The base of all errors that a user can mend, and what is not worth a traceback."""

STOPPED = 130  # 128 + SIGINT, as shells have it
REFUSED = 78  # EX_CONFIG of sysexits.h


class SwapTalkError(Exception):
    """An error that a user can mend; its text says what is wrong, where, and what to do.

    exit_code: of the command that it ends, an int. REFUSED: the same command would fail again.
    """

    exit_code = REFUSED

    def __init__(self, line, exit_code=None):
        super().__init__(line)
        if exit_code is not None:
            self.exit_code = exit_code


class ProxyError(SwapTalkError, ValueError):
    """There is no such proxy swapper, or its files are missing or of another kind."""


class ExtraError(SwapTalkError, ImportError):
    """A library of an extra is not installed; the text names the extra."""

"""Errors that a user can mend, and the exit codes that tell launchers what to do next."""


class CheckpointError(ValueError):
    """A missing or unfit checkpoint, in one line."""


STOPPED = 130  # 128 + SIGINT, as shells have it

PREEMPTED = 75  # EX_TEMPFAIL of sysexits.h

HUNG = 76

REFUSED = 78  # EX_CONFIG


class RunError(SystemExit):
    """A run that cannot go on; the message says why and what to do."""

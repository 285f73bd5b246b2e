"""Errors that a user can mend, and the exit codes that tell launchers what to do next.

Restarting helps after PREEMPTED (the state was saved), HUNG, a signal and a traceback. It does not
after REFUSED (a config, data or NaN: the same thing would happen again), and is not wanted after
STOPPED (Ctrl-C).
"""

from data_pipelines.errors import REFUSED, STOPPED, ExtraError, SwapTalkError

__all__ = [
    "CheckpointError",
    "ExtraError",
    "HUNG",
    "JoinError",
    "NetworkError",
    "PREEMPTED",
    "REFUSED",
    "RunError",
    "STOPPED",
    "Stopped",
    "SwapTalkError",
]

PREEMPTED = 75  # EX_TEMPFAIL of sysexits.h
HUNG = 76


class CheckpointError(SwapTalkError, ValueError):
    """A missing or unfit checkpoint."""


class NetworkError(SwapTalkError, ValueError):
    """A network whose fields contradict one another or what it is given."""


class RunError(SwapTalkError):
    """A run that cannot begin or go on."""


class JoinError(SwapTalkError):
    """The processes of a run did not find one another."""

    exit_code = HUNG


class Stopped(SwapTalkError):
    """A run that was asked to stop, and has saved; all of its processes end so.

    exit_code: STOPPED (Ctrl-C) or PREEMPTED (SIGTERM).
    """

"""How commands end: one line and an exit code for what a user can mend, a traceback for a bug."""

import sys

from absl.flags import argparse_flags

from data_pipelines.errors import REFUSED, STOPPED, SwapTalkError


class Parser(argparse_flags.ArgumentParser):
    """Reads a command line; one that it cannot read ends the command in one line, with REFUSED."""

    def error(self, message):
        name = self.prog.split(".")[-1].split()[0]  # of "python -m data_pipelines.build"
        self.exit(REFUSED, f"[{name}] {message}; --help tells more\n")


def run(name, work, *args, stopped="stopped"):
    """Does work(*args) and returns the exit code of the command `name`.

    That is what the work returns (None: 0), or the code of `ended`. stopped: the line of Ctrl-C.
    """
    try:
        return work(*args) or 0
    except (Exception, KeyboardInterrupt) as error:
        return ended(name, error, stopped)


def ended(name, error, stopped="stopped"):
    """Tells on the standard error what ended a command; returns the exit code.

    A SwapTalkError is one line and has its own code, Ctrl-C is the line `stopped` and STOPPED, all
    else is a bug: a traceback and 1.
    """
    if isinstance(error, SwapTalkError):
        line, code = str(error), error.exit_code
    elif isinstance(error, KeyboardInterrupt):
        line, code = stopped, STOPPED
    else:
        sys.excepthook(type(error), error, error.__traceback__)
        return 1
    print(f"[{name}] {line}", file=sys.stderr, flush=True)
    return code

"""Large pages for a process that computes on CPUs. Imports nothing heavy: it may begin again."""

import importlib.metadata
import importlib.util
import os
import platform
import sys
from pathlib import Path

TUNABLE = "glibc.malloc.hugetlb"  # 1: glibc (2.35 or newer) asks the kernel for large pages


def use_large_pages():
    """Begins this command again with large pages, where that makes it faster; else returns.

    XLA takes the memory of a step anew at each step, and the kernel hands it out page by page: on
    arrays of 30 MB elementwise operations then take three to four times as long. With pages of
    2 MiB it has 500 times fewer to hand out. glibc reads the setting when a process starts, so the
    command is executed again, before it has done anything. A program that imports this package is
    left as it is, and so is a machine with accelerators.
    """
    environment = with_large_pages()
    if environment and _in_a_command():
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


def with_large_pages():
    """The environment that asks for large pages; None where it is so already, or of no use."""
    asked = os.environ.get("GLIBC_TUNABLES", "")
    if TUNABLE in asked or platform.libc_ver()[0] != "glibc" or not _cpus_alone():
        return None
    return os.environ | {"GLIBC_TUNABLES": ":".join(filter(None, (asked, f"{TUNABLE}=1")))}


def _in_a_command():
    """Whether this process is one of the project's commands."""
    words = sys.orig_argv[1:3]
    if words[:1] == ["-m"]:
        return words[-1].startswith(f"{__package__}.")
    return Path(*words[:1]).name == "swaptalk"


def _cpus_alone():
    """Whether JAX has nothing but CPUs here, without importing it."""
    if platforms := os.environ.get("JAX_PLATFORMS"):
        return platforms == "cpu"
    plugins = importlib.metadata.entry_points(group="jax_plugins")
    return not plugins and importlib.util.find_spec("libtpu") is None

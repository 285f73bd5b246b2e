"""Large pages on CPUs."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
from places import ROOT

from swaptalk_jax import memory

FAULTS = """
import resource
import jax, jax.numpy as jnp
x = jnp.zeros(8 << 20)
step = jax.jit(lambda x: x + 1.0)
step(x).block_until_ready()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    step(x).block_until_ready()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")


@pytest.fixture(autouse=True)
def cpus(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    if platform.libc_ver()[0] != "glibc":
        pytest.skip("large pages are asked for by glibc")


@pytest.fixture
def begun(monkeypatch):
    """What the process would execute."""
    calls = []
    monkeypatch.setattr(os, "execve", lambda *call: calls.append(call))
    return calls


def test_a_step_takes_its_memory_in_few_pages():
    if not PAGES.exists() or "[madvise]" not in PAGES.read_text():
        pytest.skip("this kernel gives large pages always or never")
    if tuple(map(int, platform.libc_ver()[1].split("."))) < (2, 35):
        pytest.skip("this glibc cannot ask for large pages")

    def faults(environment):
        command = [sys.executable, "-c", FAULTS]
        return int(subprocess.run(command, env=environment, capture_output=True, check=True).stdout)

    assert faults(memory.with_large_pages()) < faults(dict(os.environ)) / 10


@pytest.mark.parametrize("words", [["-m", "swaptalk_jax.train"], ["/usr/bin/swaptalk", "infer"]])
def test_a_command_begins_again_once(monkeypatch, begun, words):
    monkeypatch.setattr(sys, "orig_argv", ["python", *words, "--flag=1"])
    memory.use_large_pages()
    ((program, arguments, environment),) = begun
    assert program == sys.executable and arguments == [sys.executable, *words, "--flag=1"]
    assert environment["GLIBC_TUNABLES"] == "glibc.malloc.hugetlb=1"
    monkeypatch.setenv("GLIBC_TUNABLES", environment["GLIBC_TUNABLES"])
    memory.use_large_pages()
    assert len(begun) == 1


def test_the_users_settings_stay(monkeypatch):
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.check=1")
    tunables = memory.with_large_pages()["GLIBC_TUNABLES"]
    assert tunables == "glibc.malloc.check=1:glibc.malloc.hugetlb=1"


@pytest.mark.parametrize("words", [[], ["-c", "x"], ["-m", "pytest"], ["program.py"]])
def test_a_program_that_imports_the_package_goes_on(monkeypatch, begun, words):
    monkeypatch.setattr(sys, "orig_argv", ["python", *words])
    memory.use_large_pages()
    assert not begun


def test_nothing_changes_where_jax_may_use_an_accelerator(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cuda,cpu")
    assert memory.with_large_pages() is None


def test_the_command_ends_as_before():
    command = [sys.executable, "-m", "swaptalk_jax.cli", "--version"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("swaptalk ")

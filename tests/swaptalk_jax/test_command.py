"""What commands import, and how they end when the command line is wrong."""

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import jax
import pytest
from ml_collections import ConfigDict
from places import ROOT

from swaptalk_jax import command, errors

LISTED = "import json, sys, swaptalk_jax.{}; print(json.dumps(sorted(sys.modules)))"


def python(*arguments):
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("name", ["infer", "evaluate"])
def test_who_has_a_bundle_does_not_wait_for_what_training_needs(name):
    imported = json.loads(python("-c", LISTED.format(name)).stdout)
    roots = {module.split(".")[0] for module in imported}
    assert "jax" in roots
    assert not roots & {"orbax", "grain", "tensorboardX", "tensorflow_datasets", "optax", "scipy"}
    for room in ("training", "stages", "encoding", "benchmarks", "planning", "pretrained"):
        assert not [m for m in imported if m.startswith(f"swaptalk_jax.{room}")], room


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--config=configs/nope.py",), "no config to read at 'configs/nope.py'"),
        (("--config=configs/sync.py:huge",), "no size 'huge'"),
        (("--config=configs/sync.py:micro", "--config.trian.steps=3"), "no such field: 'trian'"),
        (("--config=configs/sync.py:micro", "--config.train.steps=abc"), "train.steps=abc"),
        (("--config=configs/sync.py:micro", "--nosuch=3"), "nosuch"),
        ((), "--config"),
    ],
)
def test_a_wrong_command_line_is_refused_in_one_line(arguments, told):
    done = python("-m", "swaptalk_jax.train", *arguments)
    assert done.returncode == errors.REFUSED
    assert done.stdout == "" and len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("[train] ") and told in done.stderr


@pytest.mark.parametrize(
    ("module", "arguments", "told"),
    [
        ("swaptalk_jax.infer", ("--bundle=b",), "--source"),
        ("swaptalk_jax.pretrained", ("fetch",), "NAME"),
        ("data_pipelines.build", ("--source=synthetic",), "--out"),
        ("data_pipelines.build", ("--out=o", "--source=synthetic", "--proxy=roop"), "'roop'"),
        ("data_pipelines.benchmark", ("--loader", "--records=nowhere"), "no records"),
    ],
)
def test_every_command_refuses_so(module, arguments, told):
    done = python("-m", module, *arguments)
    assert done.returncode == errors.REFUSED
    assert done.stdout == "" and len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith(f"[{module.split('.')[-1]}] ") and told in done.stderr


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (None, 0, ""),
        (errors.CheckpointError("no such network"), errors.REFUSED, "[x] no such network\n"),
        (errors.Stopped("saved", errors.PREEMPTED), errors.PREEMPTED, "[x] saved\n"),
        (errors.JoinError("nobody came"), errors.HUNG, "[x] nobody came\n"),
        (KeyboardInterrupt(), errors.STOPPED, "[x] goes on later\n"),
    ],
)
def test_exit_codes_say_what_launchers_shall_do(error, code, told, capsys):
    def work(_):
        if error:
            raise error

    values = SimpleNamespace(config=ConfigDict({"distributed": False, "compile_cache": ""}))
    assert command.run("x", work, values, "goes on later") == code
    assert capsys.readouterr().err == told


def test_a_bug_keeps_its_traceback(capsys):
    def work(_):
        raise KeyError("bug")

    assert command.run("x", work, SimpleNamespace()) == 1
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flag", "environment", "kept"),
    [(None, "", "runs/compiled"), ("", "", None), ("mine", "", "mine"), (None, "theirs", "theirs")],
)
def test_a_bundles_compilations_are_kept_beside_it(tmp_path, monkeypatch, flag, environment, kept):
    monkeypatch.chdir(tmp_path)
    before = jax.config.jax_compilation_cache_dir
    shortest = jax.config.jax_persistent_cache_min_compile_time_secs
    jax.config.update("jax_compilation_cache_dir", environment or None)
    try:
        command.run("x", lambda _: 0, SimpleNamespace(bundle="runs/bundle", compile_cache=flag))
        found = jax.config.jax_compilation_cache_dir
        assert (found and os.path.relpath(found)) == kept
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", shortest)


def test_a_cache_that_cannot_be_written_costs_no_more_than_the_cache(tmp_path):
    (tmp_path / "file").write_text("")  # no folder can stand below it, whoever runs the test
    program = (
        "import jax\nfrom swaptalk_jax import command\n"
        f"command.keep_compiled('{tmp_path}/file/compiled')\n"
        "print(int(jax.jit(lambda x: x + 1)(1)))"
    )
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0 and done.stdout == "2\n", done.stderr

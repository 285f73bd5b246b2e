"""--config finds the package's configs where there is no file of that name."""

import subprocess
import sys

import pytest
from places import ROOT

from swaptalk_jax import configs

OWN = str(configs.FOLDER / "sync.py")


@pytest.mark.parametrize("name", ["sync", "sync.py", "configs/sync.py"])
def test_outside_of_a_checkout_a_name_is_the_packages_config(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert configs.located([f"--config={name}:tiny", "--config.seed=1"]) == [
        f"--config={OWN}:tiny",
        "--config.seed=1",
    ]
    assert configs.located(["train", "--config", name]) == ["train", "--config", OWN]


def test_a_file_that_is_there_and_a_name_that_is_not_ours_stay(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sync.py").touch()
    for word in ("--config=sync.py:tiny", "--config=mine/sync.py", "--config=common", "--out=sync"):
        assert configs.located([word]) == [word]


def test_a_command_outside_of_a_checkout_takes_them(tmp_path):
    """The field that is none is refused after the config was found and read."""
    command = [sys.executable, "-m", "swaptalk_jax.train", "--config=sync:micro"]
    made = subprocess.run(
        [*command, "--config.no_such_field=1"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "PATH": "", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert made.returncode != 0
    assert "no_such_field" in made.stderr

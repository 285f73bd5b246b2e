"""`swaptalk`: one name for all commands, each as `python -m` runs it."""

import subprocess
import sys

from places import ROOT

from swaptalk_jax import __version__, cli


def run(module, *words):
    command = [sys.executable, "-m", module, *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_version_and_help_import_no_command(capsys):
    assert cli.main(["swaptalk", "--version"]) == 0
    assert capsys.readouterr().out == f"swaptalk {__version__}\n"
    assert cli.main(["swaptalk", "--help"]) == 0
    told = capsys.readouterr().out
    assert all(f"\n  {name}" in told for name in cli.COMMANDS)
    script = "import sys; from swaptalk_jax import cli; cli.main(['swaptalk', '--help']); "
    script += "sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT).returncode == 0


def test_an_unknown_command_is_told_with_those_that_there_are(capsys):
    assert cli.main(["swaptalk", "trian"]) == 2
    told = capsys.readouterr().err
    assert "'trian'" in told and all(name in told for name in cli.COMMANDS)


def test_a_command_gets_its_words_and_ends_as_it_would_alone(tmp_path):
    words = ("fetch", "no_such_network", f"--out={tmp_path}")
    ours = run("swaptalk_jax.cli", "pretrained", *words)
    alone = run("swaptalk_jax.pretrained", *words)
    assert ours.returncode == alone.returncode != 0
    assert ours.stderr == alone.stderr
    assert "no network is called 'no_such_network'" in ours.stderr

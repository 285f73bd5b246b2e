"""The manual: it builds, it is short where it must be, and what it names exists."""

import importlib.util
import os
import re
import subprocess
import sys

import pytest
from places import ROOT

from swaptalk_jax import cli
from swaptalk_jax.configs import expert, identity, swap, sync, vqgan

CONFIGS = {"identity": identity, "vqgan": vqgan, "expert": expert, "swap": swap, "sync": sync}
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXTS = {page.name: page.read_text().replace("\\\n", " ") for page in PAGES}
ALL = "\n".join(TEXTS.values())
OURS = r"(?:configs|data_pipelines|swaptalk_jax|launch|tests|docs)"
# Every command with its flags, as the shell would be given it, to the end of its line or code.
COMMANDS = re.findall(rf"python -m ((?:{OURS})[\w.]*)([^`\n#]*)", ALL)


def test_the_manual_builds_without_a_warning(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-d", str(tmp_path)]
    made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert made.returncode == 0, made.stdout + made.stderr
    for page in (ROOT / "docs").glob("*.md"):
        place = "" if page.stem == "index" else page.stem
        assert (tmp_path / place / "index.html").is_file()


def test_readme_is_short_and_its_first_screen_has_the_two_commands():
    readme = (ROOT / "README.md").read_text()
    assert len(readme.split()) <= 900
    first = "\n".join(readme.splitlines()[:30])
    for told in (
        "docs/demo.gif",
        "swaptalk demo",
        "bash launch/quickstart.sh",
        "bash launch/test.sh",
        "consent",
    ):
        assert told in first
    assert "accelerator" in readme


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\((?!http)([^)#]+)", TEXTS[page.name]):
        assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_paths_that_the_manual_names_exist():
    paths = re.findall(rf"(?<![\w/])({OURS}/[\w./]*\w)", ALL)
    assert len(paths) > 50
    assert [p for p in paths if "NAME" not in p and not (ROOT / p).exists()] == []


def test_the_tree_of_rooms_is_the_tree():
    tree = TEXTS["architecture.md"].split("```")[1]
    for room in ("data_pipelines", "swaptalk_jax"):
        part = re.search(rf"^{room}/.*\n((?:  .*\n)+)", tree, re.MULTILINE)[1]
        names = set()
        for line in part.splitlines():
            # The names stand before the description, which begins two blanks later.
            names |= set(re.split(r" {2,}", line.strip())[0].split())
        folders = {p.parent.name + "/" for p in (ROOT / room).glob("*/__init__.py")}
        assert {name for name in names if name.endswith("/")} == folders
        assert [name for name in names if not (ROOT / room / name).exists()] == []


def test_modules_and_launchers_that_the_manual_names_exist():
    assert len(COMMANDS) > 20
    for module, _ in COMMANDS:
        assert importlib.util.find_spec(module), module
    for script in re.findall(r"(?:bash|python|sbatch\b.*?) (launch/[\w.]+)", ALL):
        assert (ROOT / script).is_file(), script
    for name in re.findall(r"`swaptalk ([a-z]+)", ALL):
        assert name in cli.COMMANDS, name


@pytest.fixture(scope="module")
def known_flags():
    """{module: its --helpfull}, of the commands in one process: JAX is imported once."""
    script = f"""
import contextlib, io, os, sys
import jax, ml_collections, swaptalk_jax.evaluation.metrics, swaptalk_jax.training.setup
from swaptalk_jax import cli
for name in {list(cli.COMMANDS)!r}:
    sys.stdout.flush()
    child = os.fork()
    if not child:
        print("=====", cli.COMMANDS[name][0])
        try:
            cli.main(["swaptalk", name, "--helpfull" if name not in ("build", "pretrained")
                      else "--help"])
        except SystemExit:
            pass
        sys.stdout.flush()
        os._exit(0)
    os.waitpid(child, 0)
"""
    told = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    parts = re.split(r"^===== (\S+)\n", told, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def test_flags_that_the_manual_names_are_flags(known_flags):
    """Those of configs, of Beam and of launchers apart, see the tests below."""
    seen = 0
    for module, rest in COMMANDS:
        if module not in known_flags:
            continue
        for flag in re.findall(r"(?<!\S)--([a-z_]+)(?![\w.])", rest):
            assert re.search(rf"--(\[no\])?{flag}\b", known_flags[module]), f"{module} --{flag}"
            seen += 1
    assert seen > 40


def test_configs_that_the_manual_names_exist():
    named = set(re.findall(r"--config=configs/(\w+)\.py:?(\w*)", ALL))
    assert len(named) > 8
    for stage, size in named:
        CONFIGS[stage].get_config(size)


def test_fields_that_the_manual_names_are_fields():
    configs = [c.get_config(size) for c in CONFIGS.values() for size in ("", "tiny")]
    flags = re.findall(r"--config\.([\w.]+)=", ALL)
    quoted = re.findall(r"`((?:loss|data|train|model|optimizer|sharding|inference)\.[\w.]+)`", ALL)
    assert len(flags) > 20 and len(quoted) > 20
    for field in {*flags, *quoted}:
        assert any(_has(config, field.split(".")) for config in configs), field


def _has(config, names):
    if not names:
        return True
    return hasattr(config, "keys") and names[0] in config and _has(config[names[0]], names[1:])


def test_options_of_launchers_that_the_manual_names_are_theirs():
    for script, rest in re.findall(r"python (launch/\w+\.py)([^`\n#]*)", ALL):
        source = (ROOT / script).read_text()
        for option in re.findall(r"--([a-z_]+)(?=[= ]|$)", rest.split(" -- ")[0]):
            assert option == "config" or f'"{option}"' in source or f'"--{option}"' in source

"""What is told of the package: one version, typed public interfaces."""

import ast
import re
import subprocess
import sys
import tomllib

from places import ROOT

from swaptalk_jax import __version__


def test_one_version():
    cited = (ROOT / "CITATION.cff").read_text()
    assert re.search(r"^version: (.*)$", cited, re.MULTILINE)[1] == __version__
    assert f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_types_of_public_interfaces_are_true(tmp_path):
    command = [sys.executable, "-m", "mypy", "--cache-dir", str(tmp_path)]
    checked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_public_functions_of_public_interfaces_are_typed():
    """mypy lets a function without any type pass; here each public one has all of them."""
    files = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mypy"]["files"]
    paths = [path for name in files for path in ROOT.glob(f"{name}/*.py")]
    paths += [ROOT / name for name in files if name.endswith(".py")]
    untyped, seen = [], 0
    for path in paths:
        tree = ast.parse(path.read_text())
        classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
        for body in (tree, *classes):
            for node in body.body:
                if not isinstance(node, ast.FunctionDef) or node.name.startswith("_"):
                    continue
                arguments = [*node.args.args, *node.args.kwonlyargs]
                typed = all(a.annotation for a in arguments if a.arg != "self") and node.returns
                seen += 1
                untyped += [] if typed else [f"{path.name}: {node.name}"]
    assert untyped == [] and seen > 30

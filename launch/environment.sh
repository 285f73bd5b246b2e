# Sourced by quickstart.sh and test.sh: makes or reuses .venv and installs the project there.
# Usage: source launch/environment.sh EXTRAS    (PYTHON=python3.12 chooses the interpreter)

extras=${1:-}
if [ ! -x .venv/bin/python ]; then
    python=${PYTHON:-$(command -v python3.12 || command -v python3.11 || command -v python3 || true)}
    if ! "${python:-false}" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        echo "SwapTalk needs Python 3.11 or newer; found: ${python:-none}. Set PYTHON=/path/to/python3.11" >&2
        exit 1
    fi
    echo "== making .venv with $python"
    "$python" -m venv .venv
fi
wanted=$(cksum setup.py)$extras
if [ "$(cat .venv/installed 2>/dev/null || true)" != "$wanted" ]; then
    echo "== installing the project${extras:+ with [$extras]} (about 1 GB, a few minutes)"
    .venv/bin/python -m pip install --quiet --upgrade pip
    .venv/bin/python -m pip install --quiet --editable ".${extras:+[$extras]}"
    echo "$wanted" > .venv/installed
fi
source .venv/bin/activate

# Sourced by quickstart.sh and test.sh: makes or reuses .venv and installs the project there.
# Usage: source launch/environment.sh EXTRAS    (PYTHON=python3.12 chooses the interpreter)

extras=${1:-}
candidates=${PYTHON:-python3 python3.13 python3.12 python3.11}
if [ ! -x .venv/bin/python ]; then
    python=
    for candidate in $candidates; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            python=$candidate
            break
        fi
    done
    if [ -z "$python" ]; then
        echo "SwapTalk needs Python 3.11 or newer, tried: $candidates." \
            "Set PYTHON=/path/to/python3.11" >&2
        exit 1
    fi
    echo "== making .venv with $python"
    "$python" -m venv .venv
fi
wanted=$(cksum setup.py)$extras
if [ "$(cat .venv/installed 2>/dev/null || true)" != "$wanted" ]; then
    echo "== installing the project${extras:+ with [$extras]} (about 2 GB, a few minutes)"
    .venv/bin/python -m pip install --quiet --upgrade pip
    .venv/bin/python -m pip install --quiet --editable ".${extras:+[$extras]}"
    echo "$wanted" > .venv/installed
fi
source .venv/bin/activate

#!/usr/bin/env bash
# Sets everything up, then lint, format and all tests. A run that tests nothing fails (pytest's 5).
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/environment.sh media,test
export JAX_PLATFORMS=${JAX_PLATFORMS:-cpu}
ruff check .
ruff format --check .
# A process a core; the tests of a file stay together, as they share what takes long to make.
exec python -m pytest -n auto --dist loadfile "$@"

#!/usr/bin/env bash
# From nothing to a talking face: installs, trains every stage on the embedded synthetic set,
# exports a bundle, makes a clip and evaluates. A second run reuses what stands.
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/environment.sh
began=$(date +%s)
run=runs/tiny

python -m swaptalk_jax.train --config=configs/sync.py:tiny

#!/usr/bin/env bash
# From nothing to a talking face: installs, trains every stage on the embedded synthetic set,
# exports a bundle, makes a clip of two people that training never saw, and evaluates.
# A second run reuses what stands; Ctrl-C stops it, the same command goes on.
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/environment.sh
began=$(date +%s)
run=runs/tiny
videos=$run/data/videos

python -m swaptalk_jax.train --config=configs/sync.py:tiny
python -m swaptalk_jax.export --workdir=$run --out=$run/bundle
python -m swaptalk_jax.infer --bundle=$run/bundle --source=$videos/0140/000.mp4 \
    --target=$videos/0150/000.mp4 --audio=$videos/0140/001.mp4 --out=$run/clip.mp4
python -m swaptalk_jax.evaluate --bundle=$run/bundle --data=$run/data --codes=$run/codes \
    --out=$run --clip=$run/clip.mp4

seconds=$(($(date +%s) - began))
echo
echo "== done in $((seconds / 60)) min $((seconds % 60)) s after installation"
echo "   clip    $PWD/$run/clip.mp4"
echo "   report  $PWD/$run/report.html"
echo "   numbers $PWD/$run/evaluation.json"

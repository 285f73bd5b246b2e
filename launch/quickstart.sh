#!/usr/bin/env bash
# From nothing to a talking face: installs, makes a first clip with the bundle that comes along, then
# trains every stage on the embedded synthetic set, exports a bundle, makes a clip of two people that
# training never saw, and evaluates.
# A second run reuses what stands; Ctrl-C stops it, the same command goes on.
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/environment.sh media
began=$(date +%s)
run=runs/tiny
demo=$run/demo

python -m swaptalk_jax.demo --out=runs/first
echo "== this clip was made by a bundle that trained for hours; now one trains from nothing"
python -m swaptalk_jax.train --config=configs/sync.py:tiny
python -m swaptalk_jax.export --config=configs/sync.py:tiny --out=$run/bundle
# Two more people of four seconds each; the first one's face and words go onto the second one.
python -c "from data_pipelines.synthetic import sampling
sampling.write('$demo', seed=1, identities=2, clips=2, frames=100)"
python -m swaptalk_jax.infer --bundle=$run/bundle --source=$demo/0000/000.mp4 \
    --target=$demo/0001/000.mp4 --audio=$demo/0000/001.mp4 --out=$run/clip.mp4
python -m swaptalk_jax.evaluate --bundle=$run/bundle --data=$run/data --codes=$run/codes \
    --out=$run --clip=$run/clip.mp4

seconds=$(($(date +%s) - began))
echo
echo "== done in $((seconds / 60)) min $((seconds % 60)) s after installation"
echo "   first   $PWD/runs/first/side_by_side.mp4"
echo "   clip    $PWD/$run/clip.mp4"
echo "   report  $PWD/$run/report.html"
echo "   numbers $PWD/$run/evaluation.json"

#!/usr/bin/env bash
# Measures training and inference on the GPU at hand, in minutes and without network: steps of all
# stages at the paper's size, share of the peak, largest batches, input, frames/s; all beside bounds.
#
#   bash launch/gpu_check.sh --minutes=8 --wheels=wheels
#
# Needs Python 3.11 or newer with JAX for CUDA, Flax, Optax and NumPy (PYTHON=... chooses it). What
# else it lacks comes from a folder of wheels, made by the same Python on a machine with network
# (pip wheel, not pip download: one package has no wheel in the index):
#
#   python launch/gpu_check.py --requirements > needs.txt && pip wheel --wheel-dir=wheels -r needs.txt
#
# All other options go to launch/gpu_check.py. The same command goes on where it was stopped.
set -euo pipefail

say() { echo "gpu_check.sh: $*" >&2; }
python=${PYTHON:-python3}
wheels=
options=()
for option in "$@"; do
    case $option in
        --wheels=*) wheels=$(realpath -m -- "${option#--wheels=}") ;;
        *) options+=("$option") ;;
    esac
done
cd "$(dirname "$0")/.."
export PYTHONPATH=$PWD

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null; then
    say "$python is no Python 3.11 or newer; set PYTHON=/path/to/python"
    exit 78
fi
mapfile -t absent < <("$python" launch/gpu_check.py --absent)
if [ ${#absent[@]} -gt 0 ]; then
    if [ -z "$wheels" ]; then
        say "$python lacks ${absent[*]}; give --wheels=FOLDER, see the head of this script"
        exit 78
    fi
    if [ ! -d "$wheels" ]; then
        say "there is no folder $wheels of wheels"
        exit 78
    fi
    environment=${CARD_VENV:-runs/card/venv}
    # --without-pip, and what the parent sees by a path file: the parent may be a venv itself,
    # which a venv made of it would not see.
    "$python" -m venv --without-pip --system-site-packages "$environment"
    inside=$("$environment/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    "$python" -c 'import sys; print(*[p for p in sys.path if p.endswith("-packages")], sep="\n")' \
        > "$inside/parent.pth"
    python=$environment/bin/python
    mapfile -t absent < <("$python" launch/gpu_check.py --absent) # of an earlier call
    log=$environment/pip.log
    if [ ${#absent[@]} -gt 0 ] && ! "$python" -m pip install --quiet --no-index --no-compile \
        --find-links="$wheels" "${absent[@]}" > "$log" 2>&1; then
        wanted=$(grep -o 'No matching distribution found for .*' "$log" | tail -1)
        say "$wheels: cannot install from it: ${wanted:-see $log}"
        exit 78
    fi
fi
exec "$python" launch/gpu_check.py --spent="$SECONDS" "${options[@]}"

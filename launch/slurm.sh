#!/usr/bin/env bash
# Trains a stage on a SLURM cluster, a process a GPU, until it is done.
#
#   sbatch launch/slurm.sh --config=configs/vqgan.py
#   sbatch --nodes=4 --partition=gpu --time=8:00:00 launch/slurm.sh --config=configs/sync.py:small
#
# Submit it from the repository, on a disk that all nodes share; .venv is used if it is there.
# What comes after the script's name goes to swaptalk_jax.train. Options before it take the place of
# the #SBATCH lines below.
#
# Two minutes before its time is over, and when it is preempted (with GraceTime), the run is told,
# saves and ends with 75: the job is queued again and goes on from there. 76 (hung), a signal and a
# traceback: started again in the same allocation, no more than RESTARTS (5) times in a row without
# a newer checkpoint. 78 (refused) and 130 are final. A node that fails queues the job again
# (--requeue).
#SBATCH --job-name=swaptalk
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.out
# All GPUs of a node stay visible to each task (so no --gpus-per-task): JAX takes the one whose
# number is SLURM_LOCALID.
set -uo pipefail

if [ $# -eq 0 ]; then
    echo "usage: sbatch launch/slurm.sh --config=configs/vqgan.py [...]" >&2
    exit 78
fi
if [ -z "${SLURM_JOB_ID:-}" ]; then
    echo "slurm.sh: not in a SLURM job; submit it: sbatch launch/slurm.sh $*" >&2
    exit 78
fi
cd "${SLURM_SUBMIT_DIR:-.}" || exit 78
python=python
[ -x .venv/bin/python ] && python=$PWD/.venv/bin/python
command=("$python" -u -m swaptalk_jax.train "$@" --config.distributed=True)

# The newest step saved, empty where there is none: local.py knows where a command's run lies.
newest() {
    "$python" -c 'import argparse, sys; sys.path.insert(0, "launch"); import local
step = local.Launcher(argparse.Namespace(workdir=None, command=sys.argv[1:])).checkpoint()
print("" if step is None else step)' "${command[@]}"
}

# Each task notes how it ended: srun tells but the highest code, and killed peers have high ones.
# trap: the signal is for Python; the shell around it has to live on to note.
# shellcheck disable=SC2016  # the task's shell expands these
task='trap : TERM INT; "$@"; code=$?; echo $code >> "$SWAPTALK_CODES"; exit $code'

# srun stopped reading what sbatch was given (Slurm 22.05).
[ -n "${SLURM_CPUS_PER_TASK:-}" ] && export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK

# SLURM may tell this script too; it has to outlive the run.
trap : TERM
failures=0
saved=$(newest)
while :; do
    SWAPTALK_CODES=$(mktemp "$PWD/.slurm-$SLURM_JOB_ID-XXXXXX") || exit 78
    export SWAPTALK_CODES
    srun --kill-on-bad-exit=1 bash -c "$task" task "${command[@]}" &
    srun=$!
    wait $srun
    code=$?
    while kill -0 $srun 2> /dev/null; do # a signal ends wait, not srun
        wait $srun
        code=$?
    done
    codes=$(sort -u "$SWAPTALK_CODES" | tr '\n' ' ')
    rm -f "$SWAPTALK_CODES"
    echo "slurm.sh: srun ended with $code, its processes with: ${codes:-nothing}"
    for final in 78 130; do
        case " $codes" in *" $final "*) exit $final ;; esac
    done
    [ $code -eq 0 ] && exit 0
    case " $codes" in *" 76 "*) ;; *" 75 "*)
        echo "slurm.sh: preempted and saved; queued again"
        scontrol requeue "$SLURM_JOB_ID" && exit 0
        echo "slurm.sh: cannot be queued again; submit the same command to go on" >&2
        exit 75
        ;;
    esac
    before=$saved
    saved=$(newest)
    failures=$((failures + 1))
    [ "$saved" != "$before" ] && failures=0
    if [ $failures -gt "${RESTARTS:-5}" ]; then
        echo "slurm.sh: $failures times in a row without a newer checkpoint: giving up" >&2
        exit $code
    fi
    echo "slurm.sh: starts again from ${saved:-the start}"
    sleep "${WAIT:-10}"
done

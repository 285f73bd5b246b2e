#!/usr/bin/env bash
# Trains a stage on a Cloud TPU pod from your machine: asks for the pod, waits, copies this checkout,
# installs, runs on all workers, and starts again when the pod is preempted.
#
#   NAME=swaptalk ZONE=us-east5-b TYPE=v5litepod-16 RUNTIME=v2-alpha-tpuv5-lite SPOT=1 \
#   SETUP='sudo mkdir -p /runs && sudo mount -t nfs 10.0.0.2:/runs /runs' \
#       bash launch/tpu_pod.sh --config=configs/vqgan.py --config.workdir=/runs/paper/vqgan
#   NAME=swaptalk ZONE=us-east5-b bash launch/tpu_pod.sh delete
#
# The workdir and the data have to lie on a disk that all workers mount, and that outlives them:
# SETUP is run on every worker before the installation and mounts it. Needs gcloud, signed in, with
# a project that has quota. What comes after the script's name goes to swaptalk_jax.train.
#
# SPOT=1: cheaper, and preempted now and then. RESTARTS=5: give up after so many failures in a row
# without a newer checkpoint. 78 (refused) is final. Ctrl-C has the run save and stop. A pod costs
# money while it stands: it is deleted when the run is done; any other end leaves it, and says so.
# shellcheck disable=SC2153  # NAME and ZONE come from the environment
set -uo pipefail

say() { echo "tpu_pod.sh: $*"; }
refuse() {
    say "$*" >&2
    exit 78
}

usage="NAME=... ZONE=... TYPE=... RUNTIME=... bash launch/tpu_pod.sh --config=configs/vqgan.py [...]"
[ $# -gt 0 ] || refuse "usage: $usage"
for name in NAME ZONE; do
    [ -n "${!name:-}" ] || refuse "$name is not set; usage: $usage"
done
command -v gcloud > /dev/null || refuse "gcloud is missing: https://cloud.google.com/sdk/docs/install"
tpus=(gcloud compute tpus)
where=(--zone="$ZONE")

delete() {
    # --force: with its node. Deleting what a preemption has suspended already works too.
    "${tpus[@]}" queued-resources delete "$NAME" "${where[@]}" --force --quiet
}

if [ "$1" = delete ]; then
    delete && say "$NAME is deleted"
    exit
fi
for name in TYPE RUNTIME; do
    [ -n "${!name:-}" ] || refuse "$name is not set; usage: $usage"
done
cd "$(dirname "$0")/.." || exit 78
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

create() {
    local options=(--node-id="$NAME" --accelerator-type="$TYPE" --runtime-version="$RUNTIME")
    [ -n "${SPOT:-}" ] && options+=(--spot)
    say "asks for $NAME, a $TYPE in $ZONE${SPOT:+, spot}"
    "${tpus[@]}" queued-resources create "$NAME" "${where[@]}" "${options[@]}" --quiet
}

# State of the pod's queued resource or node; empty where there is none. What is wrong ends the
# script the first time; later it may be the network, and is tried again.
state() {
    if "${tpus[@]}" "$1" describe "$NAME" "${where[@]}" --format="value($2)" \
        > "$work/state" 2> "$work/error"; then
        : > "$work/asked"
        cat "$work/state"
    elif ! grep -qi 'not.found' "$work/error"; then
        echo "error: $(head -1 "$work/error")"
    fi
}

# Waits until the pod stands, asking for it where there is none or only what is left of one.
obtain() {
    local found before=
    while :; do
        found=$(state queued-resources state.state)
        # Queued resources stay ACTIVE a while after their node was preempted.
        [ "$found" = ACTIVE ] && found="ACTIVE $(state tpu-vm state)"
        [ -n "$found" ] && [ "$found" != "$before" ] && say "$NAME: $found"
        before=$found
        case $found in
            "ACTIVE READY") return ;;
            *error:*) [ -e "$work/asked" ] || refuse "cannot ask for $NAME" ;;
            "") create || refuse "cannot create $NAME" ;;
            FAILED | SUSPENDED | "ACTIVE PREEMPTED" | "ACTIVE TERMINATED")
                delete || refuse "cannot delete what is left of $NAME"
                ;;
        esac
        sleep "${POLL:-30}"
    done
}

# Runs a command on all workers.
everywhere() { "${tpus[@]}" tpu-vm ssh "$NAME" "${where[@]}" --worker=all --command="$1"; }

install() {
    # Tracked files as they are here, committed or not.
    git ls-files -z | tar --null --files-from=- --create --gzip --file="$work/code.tgz" ||
        refuse "run it from a git checkout: git tells what to copy"
    "${tpus[@]}" tpu-vm scp "$work/code.tgz" "$NAME:swaptalk.tgz" "${where[@]}" --worker=all &&
        everywhere "set -e; ${SETUP:-true}; mkdir -p swaptalk; tar -xzf swaptalk.tgz -C swaptalk
            cd swaptalk
            command -v python3.12 || command -v python3.11 ||
                { sudo apt-get -q update; sudo apt-get -q -y install python3.11-venv; }
            source launch/environment.sh tpu"
}

arguments=$(printf ' %q' "$@")
# Every worker says how it ended, as gcloud does not tell their codes apart. setsid: a group of its
# own, so that nothing of a run outlives it and holds the chips, input workers neither.
remote="cd swaptalk; [ -f pid ] && kill -9 -- -\$(cat pid) 2> /dev/null
    setsid .venv/bin/python -u -m swaptalk_jax.train$arguments --config.distributed=True &
    echo \$! > pid; wait \$!; code=\$?; kill -9 -- -\$(cat pid) 2> /dev/null; rm -f pid
    echo \"worker's exit code \$code.\"; exit \$code"

stopped=
stop() {
    stopped=1
    say "stopping: all workers save, please wait"
    # TERM: a shell's background command does not hear INT.
    # shellcheck disable=SC2016  # the worker's shell expands it
    everywhere 'kill -TERM $(cat swaptalk/pid)' &
}

failures=0 newest=-1
while :; do
    obtain
    if install; then
        trap stop INT TERM
        everywhere "$remote" 2>&1 | tee -i "$work/log" &
        run=$!
        wait $run
        while kill -0 $run 2> /dev/null; do wait $run; done # a signal ends wait, not the run
        trap - INT TERM
        codes=$(grep -o "worker's exit code [0-9]*\." "$work/log" | grep -o '[0-9]*' | sort -u |
            tr '\n' ' ')
        began=$(grep -o 'goes on at step [0-9]*' "$work/log" | grep -o '[0-9]*' | tail -1)
        say "workers ended with: ${codes:-nothing, they are gone}"
    else
        codes="" began=""
        say "cannot install on $NAME"
    fi
    for final in 78 130; do
        case " $codes" in *" $final "*)
            say "$NAME still stands, and costs; to end that: launch/tpu_pod.sh delete" >&2
            exit $final
            ;;
        esac
    done
    if [ "$codes" = "0 " ]; then
        if delete; then say "done; $NAME is deleted"; else say "done; DELETE $NAME YOURSELF" >&2; fi
        exit 0
    fi
    if [ -n "$stopped" ]; then
        say "$NAME still stands, and costs; to end that: launch/tpu_pod.sh delete" >&2
        exit 130
    fi
    failures=$((failures + 1))
    if [ -n "$began" ] && [ "$began" -gt "$newest" ]; then failures=1 newest=$began; fi
    case " $codes" in *" 75 "*) failures=0 ;; esac # it has saved
    if [ $failures -gt "${RESTARTS:-5}" ]; then
        say "$failures failures in a row without a newer checkpoint: giving up; $NAME still" \
            "stands, and costs; to end that: launch/tpu_pod.sh delete" >&2
        exit 1
    fi
    say "starts again"
    sleep "${POLL:-30}"
done

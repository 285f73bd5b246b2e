"""The launchers: exit codes and what they do about them, with real processes and fake clusters."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time

import pytest
import yaml
from places import ROOT

from swaptalk_jax import errors
from swaptalk_jax.configs import common, expert, identity, swap, sync, vqgan
from swaptalk_jax.training import processes, upstream

sys.path.insert(0, str(ROOT / "launch"))
import local  # noqa: E402  # a script, not a module of the package

# A program in place of the training: each start notes itself and does the next thing of the list,
# which process `who` alone does where there are several.
PROGRAM = """
import os, signal, sys, time
from pathlib import Path
folder, who, *things = sys.argv[1:]
things = [t for t in things if not t.startswith("--config.")]
me = os.environ.get("SWAPTALK_PROCESS", "0")
starts = folder + "/starts-" + me
n = os.path.getsize(starts) if os.path.exists(starts) else 0
open(starts, "a").write("x")
signal.signal(signal.SIGTERM, lambda *_: (time.sleep(0.3), print("saved"), sys.exit(75)))
signal.signal(signal.SIGINT, lambda *_: (time.sleep(0.3), print("saved"), sys.exit(130)))
what = things[min(n, len(things) - 1)]
if "+" in what:  # a checkpoint, and what then
    step, what = what.split("+")
    (Path(folder) / "checkpoints" / step).mkdir(parents=True)
print("start", n, "of", me, flush=True)
if what == "wait" or me != who:
    time.sleep(0.5 if what == "0" else 60)
if int(what) < 0:
    os.kill(os.getpid(), -int(what))
sys.exit(int(what))
"""


@pytest.fixture
def program(tmp_path):
    """Command whose starts do one thing each: an exit code, -signal, step+code, or wait."""
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)

    def command(*things, who="0"):
        return [sys.executable, str(path), str(tmp_path), who, *map(str, things)]

    return command


def launch(command, *options, **more):
    """Popen of launch/local.py."""
    return subprocess.Popen(
        [sys.executable, str(ROOT / "launch" / "local.py"), "--wait=0", *options, "--", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | more,
    )


def ended(run):
    """(exit code, output)."""
    out, _ = run.communicate(timeout=60)
    return run.returncode, out


def starts(tmp_path, process=0):
    return len((tmp_path / f"starts-{process}").read_text())


def test_the_launcher_knows_the_codes_and_folders_of_the_training():
    for name in ("STOPPED", "PREEMPTED", "HUNG", "REFUSED"):
        assert getattr(local, name) == getattr(errors, name)
    for module in (identity, vqgan, expert, swap, sync):
        for size in ("", *common.IMAGE_SIZE):
            config = module.get_config(size)
            command = f"python -m x --config=configs/{config.stage}.py{size and ':'}{size}".split()
            assert str(local.workdir(command)) == config.workdir
            assert str(local.workdir([*command, "--config.workdir=/a/b"])) == "/a/b"
            config.root = "/c d"
            assert str(local.workdir([*command, "--config.root=/c d"])) == config.workdir


@pytest.mark.parametrize(
    ("codes", "first", "code"),
    [
        ([0, 0], None, 0),
        ([75, 75], None, 75),
        ([0, 75], None, 75),
        ([130, 130], None, 130),
        ([1, -9, -9], -9, -9),  # a peer that raises only follows
        ([-9, 76], 76, 76),
        ([-9, 78], -9, 78),  # final, whenever it came
        ([75, -9], -9, -9),  # one was killed while the others saved
    ],
)
def test_one_code_of_several_decides(codes, first, code):
    assert local.verdict(codes, first) == code


@pytest.mark.parametrize(
    ("things", "code", "times"),
    [
        ((0,), 0, 1),
        ((75, 76, -9, -6, 1, 0), 0, 6),
        ((75, 78, 0), 78, 2),
        ((1, 130, 0), 130, 2),
        ((1,), 1, 6),  # five restarts without a newer checkpoint
        ((-9,), 137, 6),
        (("10+1", 1, 1, 1, 1, 1, "20+75", 1, 1, 1, 1, 1, 0), 0, 13),  # never six in a row
    ],
)
def test_exit_codes_decide_about_restarts(program, tmp_path, things, code, times):
    returned, out = ended(launch(program(*things), f"--workdir={tmp_path}"))
    assert (returned, starts(tmp_path)) == (code, times), out
    if times == 6 and things != (75, 76, -9, -6, 1, 0):
        assert "giving up" in out


def test_all_processes_start_again_when_one_fails_and_lines_tell_whose_they_are(program, tmp_path):
    returned, out = ended(launch(program(-9, 0, who="2"), "--processes=3"))
    assert returned == 0, out
    assert [starts(tmp_path, i) for i in range(3)] == [2, 2, 2]
    for i in range(3):
        assert f"{i}: start 0 of {i}" in out and f"{i}: start 1 of {i}" in out
    assert "killed by SIGKILL" in out


def test_processes_get_what_they_need_to_find_one_another(tmp_path):
    show = "import os, sys, json; print(json.dumps([dict(os.environ), sys.argv[1:]]))"
    returned, out = ended(
        launch(
            [sys.executable, "-c", show],
            *("--processes=2", "--gpus"),
            CUDA_VISIBLE_DEVICES="5,7",
        )
    )
    assert returned == 0, out
    rows = {line[0]: json.loads(line[3:]) for line in out.splitlines() if "{" in line}
    for index, card in (("0", "5"), ("1", "7")):
        found, arguments = rows[index]
        assert found["SWAPTALK_PROCESS"] == index and found["SWAPTALK_PROCESSES"] == "2"
        assert found["CUDA_VISIBLE_DEVICES"] == card
        assert arguments == ["--config.distributed=True"]
    assert len({rows[i][0]["JAX_COORDINATOR_ADDRESS"] for i in "01"}) == 1


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_signals_are_passed_on_and_saves_waited_for(program, tmp_path, number, code):
    run = launch(program("wait"), "--processes=2")
    seen = [next(line for line in run.stdout if "start 0" in line) for _ in range(2)]
    assert len(seen) == 2
    run.send_signal(number)
    returned, out = ended(run)
    assert returned == code and "0: saved" in out and "1: saved" in out
    assert starts(tmp_path) == 1


@pytest.mark.parametrize("how", ["a process fails", "the launcher is killed"])
def test_nothing_outlives_the_launcher(tmp_path, how):
    text = """
        import os, subprocess, sys, time
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        print("pids", os.getpid(), child.pid, flush=True)
        if os.environ["SWAPTALK_PROCESS"] == "1" and sys.argv[1] == "a process fails":
            time.sleep(0.5)
            sys.exit(78)
        time.sleep(60)
    """
    path = tmp_path / "family.py"
    path.write_text(textwrap.dedent(text))
    run = launch([sys.executable, str(path), how], "--processes=2")
    pids = {}
    for line in run.stdout:
        if found := re.match(r"(\d): pids (\d+) (\d+)", line):
            pids[found[1]] = (int(found[2]), int(found[3]))
        if len(pids) == 2:
            break
    assert all(map(alive, pids["0"]))
    if how == "the launcher is killed":
        run.kill()
        run.wait()
        # Linux kills what the launcher started; its children's children end as theirs (Grain's
        # workers do), which a sleeping one does not.
        gone = [pids["0"][0], pids["1"][0]]
    else:
        assert ended(run)[0] == 78
        gone = [pid for pair in pids.values() for pid in pair]
    end = time.monotonic() + 10
    while any(map(alive, gone)) and time.monotonic() < end:
        time.sleep(0.05)
    left = [pid for pid in gone if alive(pid)]
    for pair in pids.values():
        for pid in pair:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    assert not left


def alive(pid):
    with contextlib.suppress(OSError):
        text = open(f"/proc/{pid}/stat").read()
        return text.rpartition(")")[2].split()[0] != "Z"
    return False


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--processes=0", "--", "x"], "--processes=0"),
        (["--processes=2"], "command"),
        (["--", "no-such-program"], "no-such-program: No such file"),
    ],
)
def test_what_cannot_be_started_is_one_clear_line(options, told):
    run = subprocess.run(
        [sys.executable, str(ROOT / "launch" / "local.py"), *options],
        capture_output=True,
        text=True,
    )
    assert run.returncode in (2, errors.REFUSED)
    assert told in (run.stdout + run.stderr).splitlines()[-1]


# ---------------------------------------------------------------- a soak, with the real training


def test_a_killed_run_ends_with_the_bits_of_one_left_alone(tmp_path_factory, tmp_path):
    root = data(tmp_path_factory)
    # A seed of kills that come late enough to have something to go on from: SIGKILL amid a save,
    # and then SIGTERM.
    kills, seed = 2, 2639
    command = [
        *(sys.executable, str(ROOT / "launch" / "soak.py"), "--config=configs/identity.py:micro"),
        *(f"--kills={kills}", "--steps=24", f"--seed={seed}"),
        *(f"--out={tmp_path}", "--", f"--config.data.root={root}", "--config.needs=()"),
    ]
    run = subprocess.run(
        command,
        env=os.environ | {"JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "same bits" in run.stdout and re.search(rf"^all +{kills} ", run.stdout, re.M), run.stdout
    went_on = re.search(r"went on from steps: (.*)", run.stdout)[1].split(", ")
    assert len(went_on) == kills and int(went_on[-1]) > 0, run.stdout
    assert "SIGKILL      save" in run.stdout
    assert "SIGTERM      step" in run.stdout, run.stdout
    whole, killed = (tmp_path / n / "params.safetensors" for n in ("whole", "killed"))
    assert whole.read_bytes() == killed.read_bytes()


def data(factory):
    """Folder of the micro size's data, made once."""
    folder = factory.getbasetemp() / "launch_data"
    if not folder.exists():
        config = identity.get_config("micro")
        config.data.root = str(folder)
        command = upstream.command(config, "data")
        subprocess.run([sys.executable, *command, "--workers=1"], cwd=ROOT, check=True)
    return folder


def test_soak_finds_a_difference(tmp_path):
    import soak

    for name, loss in (("whole", 1.0), ("killed", 1.5)):
        (tmp_path / name / "checkpoints" / "2").mkdir(parents=True)
        (tmp_path / name / "params.safetensors").write_bytes(b"same")
        rows = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": loss}]
        (tmp_path / name / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "killed" / "checkpoints" / "1.tmp").mkdir()
    options = type("Options", (), {"kills": 1, "steps": 2, "save_every": 1, "seed": 0})
    options.out = tmp_path
    found = soak.Soak(options)
    found.kills = [soak.Kill("SIGTERM", "step", 2, False, 75, resumed=1)]
    found.compare()
    text = "\n".join(found.failures)
    assert "metrics.jsonl has other bytes" in text and "1.tmp" in text and "1 steps lost" in text
    assert "params" not in text


# ------------------------------------------------------------------------------- SLURM, with fakes


@pytest.fixture
def slurm(tmp_path):
    """Runs slurm.sh; each srun runs two tasks, which end with the next codes of the list."""
    bins = tmp_path / "bin"
    bins.mkdir()
    fake(
        bins / "srun",
        """
        echo "srun $*" >> $FAKE/calls
        n=$(grep -c '^srun' $FAKE/calls)
        codes=$(sed -n "${n}p" $FAKE/codes)
        worst=0
        while [ "$1" != bash ]; do shift; done
        for code in $codes; do
            TASK_CODE=$code "$@"; got=$?
            [ $got -gt $worst ] && worst=$got
        done
        exit $worst
        """,
    )
    fake(bins / "scontrol", 'echo "scontrol $*" >> $FAKE/calls')
    shutil.copytree(ROOT / "launch", tmp_path / "launch")
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    # The training ends as its task is told; the script's own questions are for the real Python.
    fake(
        python,
        f"""
        case "$1" in
            -u) echo "python $*" >> $FAKE/calls
                case $TASK_CODE in
                    +*) mkdir -p runs/paper/vqgan/checkpoints/${{TASK_CODE#+}}; exit 1 ;;
                    TERM) (sleep 0.5; kill -TERM $PPID) & sleep 1; exit 75 ;;
                esac
                exit $TASK_CODE ;;
            *) exec {sys.executable} "$@" ;;
        esac
        """,
    )

    def run(*rows, **more):
        (tmp_path / "codes").write_text("\n".join(rows) + "\n")
        found = {
            **os.environ,
            "PATH": f"{bins}:{os.environ['PATH']}",
            "FAKE": str(tmp_path),
            "SLURM_JOB_ID": "17",
            "SLURM_SUBMIT_DIR": str(tmp_path),
            "WAIT": "0",
            "RESTARTS": "2",
            **more,
        }
        done = subprocess.run(
            ["bash", str(ROOT / "launch" / "slurm.sh"), "--config=configs/vqgan.py"],
            env=found,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=60,
        )
        path = tmp_path / "calls"
        calls = path.read_text().splitlines() if path.exists() else []
        assert not list(tmp_path.glob(".slurm-*"))
        return done.returncode, done.stdout, [c for c in calls if not c.startswith("python")], calls

    return run


def fake(path, text):
    path.write_text("#!/usr/bin/env bash\n" + textwrap.dedent(text).strip() + "\n")
    path.chmod(0o755)


@pytest.mark.parametrize(
    ("rows", "code", "sruns", "requeued"),
    [
        (["0 0"], 0, 1, 0),
        (["75 75"], 0, 1, 1),
        (["78 137"], 78, 1, 0),  # the killed peer has the higher code
        (["130 130"], 130, 1, 0),
        (["76 137", "1 134", "0 0"], 0, 3, 0),
        (["76 75", "0 0"], 0, 2, 0),  # hung: restarted here, not queued
        (["TERM 75"], 0, 1, 1),  # the task's shell outlives the signal and notes 75
        (["1 1"] * 8, 1, 3, 0),
        (["+10 1", "1 1", "1 1", "+20 1", "1 1", "1 1", "0 0"], 0, 7, 0),
    ],
)
def test_slurm_queues_again_restarts_or_ends_by_the_codes(slurm, rows, code, sruns, requeued):
    returned, out, calls, _ = slurm(*rows)
    assert returned == code, out
    assert sum(c.startswith("srun --kill-on-bad-exit=1") for c in calls) == sruns, out
    assert calls.count("scontrol requeue 17") == requeued


def test_slurm_starts_the_training_on_every_task(slurm):
    _, _, _, calls = slurm("0 0")
    wanted = "python -u -m swaptalk_jax.train --config=configs/vqgan.py --config.distributed=True"
    assert calls.count(wanted) == 2
    text = (ROOT / "launch" / "slurm.sh").read_text()
    options = re.findall(r"^#SBATCH (\S+)$", text, re.M)
    assert {"--requeue", "--signal=TERM@120", "--open-mode=append"} <= set(options)
    # sbatch reads options only above the first command.
    assert text.rindex("#SBATCH --") < text.index("\nset -")


def test_slurm_outside_a_job_says_how_to_submit(slurm):
    returned, out, calls, _ = slurm("0", SLURM_JOB_ID="")
    assert returned == 78 and "sbatch launch/slurm.sh" in out and not calls


# --------------------------------------------------------------------------- a TPU pod, with a fake


@pytest.fixture
def pod(tmp_path):
    """Runs tpu_pod.sh; the pod and its runs do as the lists say."""
    bins = tmp_path / "bin"
    bins.mkdir()
    fake(
        bins / "gcloud",
        """
        echo "gcloud $*" | head -1 >> $FAKE/calls
        pop() { head -1 $FAKE/$1; [ $(wc -l < $FAKE/$1) -gt 1 ] && sed -i 1d $FAKE/$1; }
        case "$*" in
            *queued-resources\\ describe*)
                state=$(pop states)
                case $state in
                    none) echo "ERROR: NOT_FOUND: no such resource" >&2; exit 1 ;;
                    denied) echo "ERROR: PERMISSION_DENIED: sign in" >&2; exit 1 ;;
                esac
                echo ${state%-*} ;;
            *tpu-vm\\ describe*) echo $(pop nodes) ;;
            *tpu-vm\\ scp*) tar -tzf "$5" > $FAKE/copied ;;
            *swaptalk_jax.train*)
                last="${@: -1}"
                echo "${last#--command=}" > $FAKE/remote
                row=$(pop runs)
                case $row in
                    wait) echo "[vqgan] goes on at step 5"
                        while [ ! -e $FAKE/killed ]; do sleep 0.1; done; row=75 ;;
                    *at*) echo "[vqgan] goes on at step ${row#*at}"; row=${row%at*} ;;
                esac
                for code in $row; do echo "worker's exit code $code."; done
                [ "$row" = "0 0" ] ;;
            *kill\\ -TERM*) touch $FAKE/killed ;;
        esac
        """,
    )

    def start(*arguments, states=("ACTIVE",), nodes=("READY",), runs=("0 0",), **more):
        for name, rows in (("states", states), ("nodes", nodes), ("runs", runs)):
            (tmp_path / name).write_text("".join(f"{row}\n" for row in rows))
        named = {"NAME": "pod", "ZONE": "z", "TYPE": "v5litepod-16", "RUNTIME": "r", "POLL": "0"}
        return subprocess.Popen(
            ["bash", str(ROOT / "launch" / "tpu_pod.sh"), *arguments],
            env=os.environ
            | {"PATH": f"{bins}:{os.environ['PATH']}", "FAKE": str(tmp_path)}
            | named
            | more,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def calls(word):
        path = tmp_path / "calls"
        return [c for c in path.read_text().splitlines() if word in c] if path.exists() else []

    return start, calls, tmp_path


TRAIN = "--config=configs/vqgan.py"


def test_tpu_pod_is_asked_for_waited_for_used_and_deleted(pod):
    start, calls, folder = pod
    states = ("none", "WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE")
    code, out = ended(start(TRAIN, "--config.seed=a b", states=states, SPOT="1"))
    assert code == 0, out
    (create,) = calls("queued-resources create")
    assert create == (
        "gcloud compute tpus queued-resources create pod --zone=z --node-id=pod "
        "--accelerator-type=v5litepod-16 --runtime-version=r --spot --quiet"
    )
    assert "WAITING_FOR_RESOURCES" in out and "ACTIVE READY" in out
    assert "swaptalk_jax/train.py" in (folder / "copied").read_text()
    assert all("--worker=all" in c for c in calls("tpu-vm ssh") + calls("tpu-vm scp"))
    assert len(calls("queued-resources delete pod --zone=z --force")) == 1


def test_tpu_workers_tell_how_they_ended_and_leave_nothing_behind(pod):
    start, _, folder = pod
    assert ended(start(TRAIN, "--config.workdir=/a b"))[0] == 0
    remote = (folder / "remote").read_text()
    python = folder / "swaptalk" / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    # A run with a child, as input workers are, that was told to stop.
    fake(python, 'for a in "$@"; do echo "<$a>"; done; sleep 60 & echo "child $!"; exit 75')
    run = subprocess.run(
        ["bash", "-c", remote], cwd=folder, stdout=subprocess.PIPE, text=True, timeout=30
    )
    assert run.returncode == 75 and "worker's exit code 75." in run.stdout
    assert "<--config.workdir=/a b>\n<--config.distributed=True>" in run.stdout
    child = int(re.search(r"child (\d+)", run.stdout)[1])
    end = time.monotonic() + 10
    while alive(child) and time.monotonic() < end:
        time.sleep(0.05)
    assert not alive(child) and not (folder / "swaptalk" / "pid").exists()


@pytest.mark.parametrize(
    ("given", "code", "runs", "deleted", "created"),
    [
        # Preempted: what is left goes, a new pod comes, the run goes on.
        (
            {
                "states": ("ACTIVE", "SUSPENDING", "SUSPENDED", "none", "ACTIVE"),
                "runs": ("75 75", "0 0"),
            },
            *(0, 2, 2, 1),
        ),
        # The node is gone while its resource still says ACTIVE; the run could say nothing.
        (
            {
                "states": ("ACTIVE", "ACTIVE", "none", "ACTIVE"),
                "nodes": ("READY", "PREEMPTED", "READY"),
                "runs": ("", "0 0"),
            },
            *(0, 2, 2, 1),
        ),
        ({"runs": ("78 78",)}, 78, 1, 0, 0),
        ({"runs": ("1 134", "76 134", "0 0")}, 0, 3, 1, 0),
        ({"runs": ("1 134",), "RESTARTS": "2"}, 1, 3, 0, 0),
        ({"runs": ("1at5", "1at9", "1at13", "0 0"), "RESTARTS": "1"}, 0, 4, 1, 0),
        ({"runs": ("1at5", "1at9", "1at9", "0 0"), "RESTARTS": "1"}, 1, 3, 0, 0),
        ({"states": ("denied",)}, 78, 0, 0, 0),
    ],
)
def test_tpu_pod_restarts_or_ends_by_the_codes(pod, given, code, runs, deleted, created):
    start, calls, _ = pod
    returned, out = ended(start(TRAIN, **given))
    assert returned == code, out
    assert len(calls("queued-resources delete")) == deleted
    assert len(calls("queued-resources create")) == created
    # The training's command is many lines; its first one tells it.
    assert len(calls("cd swaptalk; [ -f pid ]")) == runs
    if runs and not deleted:
        assert "still" in out and "costs" in out


def test_tpu_pod_saves_upon_ctrl_c(pod):
    start, calls, _ = pod
    run = start(TRAIN, runs=("wait",))
    next(line for line in run.stdout if "goes on at step 5" in line)
    run.send_signal(signal.SIGINT)
    code, out = ended(run)
    assert code == 130 and "still stands" in out, out
    assert len(calls("kill -TERM")) == 1 and not calls("queued-resources delete")


def test_tpu_pod_says_what_is_missing(pod):
    start, calls, _ = pod
    code, out = ended(start(TRAIN, ZONE=""))
    assert code == 78 and "ZONE is not set" in out
    code, out = ended(start("delete", TYPE=""))
    assert code == 0 and len(calls("queued-resources delete")) == 1


# -------------------------------------------------------------------------------------- Kubernetes


def jobsets():
    return list(yaml.safe_load_all((ROOT / "launch" / "k8s.yaml").read_text()))


@pytest.mark.parametrize("index", [0, 1])
def test_kubernetes_restarts_or_fails_by_the_codes(index):
    spec = jobsets()[index]["spec"]
    (workers,) = spec["replicatedJobs"]
    job = workers["template"]["spec"]
    pod = job["template"]["spec"]

    def action(code, disrupted=False):
        """What JobSet does: the Job controller's message, and the first rule that matches it."""
        reason, message = "BackoffLimitExceeded", "Job has reached the specified backoff limit"
        for i, rule in enumerate(job["podFailurePolicy"]["rules"]):
            codes = rule.get("onExitCodes", {"values": []})["values"]
            if code in codes or (disrupted and "onPodConditions" in rule):
                if rule["action"] == "FailJob":
                    reason = "PodFailurePolicy"
                    message = f"Container train for pod a/b failed with exit code {code} matching"
                    if code not in codes:
                        message = "Pod a/b has condition DisruptionTarget matching"
                    message += f" FailJob rule at index {i}"
                break
        for rule in spec["failurePolicy"]["rules"]:
            if reason in rule["onJobFailureReasons"] and any(
                re.search(pattern, message) for pattern in rule["onJobFailureMessagePatterns"]
            ):
                return rule["action"]
        return "RestartJobSet"  # JobSet's default, which counts

    assert action(errors.REFUSED) == action(errors.STOPPED) == "FailJobSet"
    assert action(errors.PREEMPTED) == "RestartJobSetAndIgnoreMaxRestarts"
    assert action(143, disrupted=True) == "RestartJobSetAndIgnoreMaxRestarts"
    for code in (errors.HUNG, 1, 134, 137, 143):
        assert action(code) == "RestartJobSet"
    assert spec["failurePolicy"]["maxRestarts"] > 0 and job["backoffLimit"] == 0
    assert pod["restartPolicy"] == "Never" and pod["terminationGracePeriodSeconds"] >= 120
    assert job["completionMode"] == "Indexed" and job["completions"] == job["parallelism"]


def test_kubernetes_pods_can_find_one_another():
    tpu, gpu = (d["spec"]["replicatedJobs"][0]["template"]["spec"] for d in jobsets())
    names = [d["metadata"]["name"] for d in jobsets()]
    assert names == ["swaptalk-tpu", "swaptalk-gpu"]
    for job in (tpu, gpu):
        (container,) = job["template"]["spec"]["containers"]
        assert "--config.distributed=True" in container["command"]
        mounts = {m["name"] for m in container["volumeMounts"]}
        assert mounts == {v["name"] for v in job["template"]["spec"]["volumes"]}
    (container,) = gpu["template"]["spec"]["containers"]
    env = {e["name"]: e for e in container["env"]}
    assert env[processes.ADDRESS]["value"].startswith("swaptalk-gpu-workers-0-0.swaptalk-gpu:")
    assert int(env[processes.COUNT]["value"]) == gpu["parallelism"]
    path = env[processes.INDEX]["valueFrom"]["fieldRef"]["fieldPath"]
    assert path == "metadata.annotations['batch.kubernetes.io/job-completion-index']"


@pytest.mark.parametrize(
    "name", ["slurm.sh", "tpu_pod.sh", "quickstart.sh", "test.sh", "gpu_check.sh"]
)
def test_shell_scripts_are_sound(name):
    path = str(ROOT / "launch" / name)
    assert subprocess.run(["bash", "-n", path]).returncode == 0
    checker = shutil.which("shellcheck", path=f"{os.path.dirname(sys.executable)}:{os.defpath}")
    if checker:
        done = subprocess.run([checker, "-x", path], capture_output=True, text=True, cwd=ROOT)
        assert done.returncode == 0, done.stdout

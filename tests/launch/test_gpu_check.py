"""gpu_check: a failed row costs itself, Ctrl-C keeps what stands, wheels come from a folder."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile

import pytest
from places import ROOT

sys.path.insert(0, str(ROOT / "launch"))
import gpu_check  # noqa: E402  # a script, not a module of the package
import gpu_check_rows  # noqa: E402

# What a row's process does, by its name; {out} is the file of its lines.
TELL = "open({out!r}, 'a').write({text!r});"
GOOD = TELL + "open({out!r} + '.calls', 'a').write('x')"


def fake(monkeypatch, **known):
    """Has rows run Python code instead: that of `known` by name, else one that is done at once."""
    text = json.dumps({"device": "card A", "jax": "1", "batch": 2, "step": [1, 2, 4]}) + "\n"

    def command(row, config, seconds, options):
        out = str(options.out / "rows" / f"{row.name}.jsonl")
        code = known.get(row.name.replace("-", "_"), GOOD).format(out=out, text=text)
        return [sys.executable, "-c", code]

    monkeypatch.setattr(gpu_check_rows, "command", command)


def check(tmp_path, *options):
    """(exit code, {row: values}, the section)."""
    code = gpu_check.main([f"--out={tmp_path}", "--size=micro", *options])
    folder = tmp_path / "micro"
    rows = json.loads((folder / "results.json").read_text())["rows"]
    return code, rows, (folder / "section.md").read_text()


def test_a_row_that_fails_costs_itself_and_says_why(tmp_path, monkeypatch, capfd):
    fake(
        monkeypatch,
        step_sync="raise SystemExit('[benchmark] no such thing')",
        step_swap=TELL + "raise RuntimeError('RESOURCE_EXHAUSTED: 3 GiB')",
        step_vqgan=TELL + "import os; os.kill(os.getpid(), 9)",
        infer="import time; time.sleep(60)",
    )
    monkeypatch.setattr(gpu_check, "CARD", [
        row if row.name != "infer" else gpu_check_rows.Row("infer", "sync", 2)
        for row in gpu_check.CARD
    ])  # fmt: skip
    began = time.monotonic()
    code, rows, section = check(tmp_path)
    assert code == 0 and time.monotonic() - began < 30
    assert rows["step-sync"]["state"] == "failed"
    assert rows["step-sync"]["why"] == "[benchmark] no such thing"
    assert rows["step-swap"]["why"] == "the device's memory is too small"
    assert "SIGKILL" in rows["step-vqgan"]["why"] and rows["step-vqgan"]["batch"] == 2
    assert rows["infer"]["state"] == "cut" and rows["infer"]["why"] == "took longer than 2 s"
    done = {name for name, row in rows.items() if row["state"] == "done"}
    assert len(done) == len(gpu_check.CARD) + len(gpu_check.CPU) - 4
    assert section.startswith("## card A\n") and "| expert | 2 | 2000 (1000, 4000) | 1 |" in section
    assert "- `infer`: cut, took longer than 2 s" in section
    assert "[card] 4 rows are left; the same command goes on" in capfd.readouterr().out


def test_the_second_call_measures_what_is_left_and_nothing_twice(tmp_path, monkeypatch):
    only = "--only=peak,step-sync,step-swap"
    fake(monkeypatch, step_sync="raise SystemExit(1)")
    assert check(tmp_path, only)[1]["step-sync"]["state"] == "failed"
    fake(monkeypatch)
    code, rows, section = check(tmp_path, only)
    assert code == 0 and [row["state"] for row in rows.values()] == ["done"] * 3
    assert "did not end" not in section
    for name in ("peak", "step-sync", "step-swap"):
        assert (tmp_path / "micro" / "rows" / f"{name}.jsonl.calls").read_text() == "x", name


def test_when_the_time_is_over_the_most_important_rows_stand(tmp_path, monkeypatch, capfd):
    fake(monkeypatch, step_sync=TELL + "import time; time.sleep(60)")
    monkeypatch.setattr(gpu_check, "LEAST", 0.5)
    code, rows, _ = check(tmp_path, "--only=peak,step-sync,step-swap", "--spent=474")
    assert code == 0 and list(rows) == ["peak", "step-sync"]
    assert rows["step-sync"]["step"] == [1, 2, 4] and rows["step-sync"]["state"] == "late"
    assert "2 rows are left" in capfd.readouterr().out


def test_nothing_measured_is_a_failure_and_damaged_files_are_refused(tmp_path, monkeypatch, capfd):
    fake(monkeypatch, peak="raise SystemExit(3)")
    code, rows, _ = check(tmp_path, "--only=peak")
    assert code == 1 and rows["peak"]["why"] == "exit code 3"
    (tmp_path / "micro" / "results.json").write_text("{")
    assert gpu_check.main([f"--out={tmp_path}", "--size=micro"]) == gpu_check.REFUSED
    assert "results.json: cannot be read" in capfd.readouterr().err


def test_another_card_begins_anew(tmp_path, monkeypatch, capfd):
    fake(monkeypatch)
    check(tmp_path, "--only=peak,step-sync,plan-sync")
    code = "import json; open({out!r}, 'a').write(json.dumps(dict(device='card B')))"
    fake(monkeypatch, step_swap=code)
    _, rows, section = check(tmp_path, "--only=step-swap")
    assert rows.keys() == {"plan-sync", "step-swap"} and section.startswith("## card B\n")
    assert "rows of card A are dropped" in capfd.readouterr().out


def test_ctrl_c_keeps_what_stands_and_ends_what_runs(tmp_path):
    script = f"""
import sys
sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "launch")!r}]
import gpu_check, gpu_check_rows
code = "import os, sys, time; open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(60)"
gpu_check_rows.command = lambda row, *_: [sys.executable, "-c",
    "print(1)" if row.what == "peak" else code, {str(tmp_path / "pid")!r}]
sys.exit(gpu_check.main(["--out={tmp_path}", "--only=peak,step-sync"]))
"""
    run = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    pid = tmp_path / "pid"
    deadline = time.monotonic() + 30
    while not (pid.exists() and pid.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    run.send_signal(signal.SIGINT)
    out, _ = run.communicate(timeout=30)
    assert run.returncode == 130 and "1 rows are left" in out
    rows = json.loads((tmp_path / "paper" / "results.json").read_text())["rows"]
    assert rows["peak"]["state"] == "done" and rows["step-sync"]["why"] == "stopped"
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


def test_what_is_needed_is_what_setup_asks_for():
    needed = gpu_check.requirements()
    assert "grain>=0.2.15" in needed and not any(line.startswith("jax") for line in needed)
    assert gpu_check.absent(needed) == []
    assert gpu_check.absent(["nothing-of-this-name>=1"]) == ["nothing-of-this-name>=1"]


@pytest.fixture
def checkout(tmp_path):
    """A folder with the scripts, and a setup.py that asks for a package that nobody has."""
    shutil.copytree(ROOT / "launch", tmp_path / "launch")
    (tmp_path / "setup.py").write_text('CORE = ["scipy", "needed-by-the-card>=1"]\n')
    (tmp_path / "wheels").mkdir()

    def run(*options):
        command = ["bash", str(tmp_path / "launch" / "gpu_check.sh"), "--absent", *options]
        variables = {"PYTHON": sys.executable, "PIP_INDEX_URL": "http://127.0.0.1:9/simple"}
        return subprocess.run(
            command, cwd=tmp_path, env=os.environ | variables, capture_output=True, text=True
        )

    return run


def test_a_missing_wheel_is_one_line(checkout):
    for options, told in [
        ((), "lacks needed-by-the-card>=1; give --wheels=FOLDER"),
        (("--wheels=nowhere",), "there is no folder"),
        (("--wheels=wheels",), "No matching distribution found for needed-by-the-card>=1"),
    ]:
        done = checkout(*options)
        assert done.returncode == 78 and done.stdout == ""
        assert told in done.stderr and done.stderr.count("\n") == 1, done.stderr


def test_wheels_of_a_folder_are_installed_without_network(checkout, tmp_path):
    name = "needed_by_the_card-1.0"
    with zipfile.ZipFile(tmp_path / "wheels" / f"{name}-py3-none-any.whl", "w") as wheel:
        wheel.writestr("needed_by_the_card.py", "")
        head = "Name: needed-by-the-card\nVersion: 1.0\n"
        wheel.writestr(f"{name}.dist-info/METADATA", f"Metadata-Version: 2.1\n{head}")
        tag = "Root-Is-Purelib: true\nTag: py3-none-any\n"
        wheel.writestr(f"{name}.dist-info/WHEEL", f"Wheel-Version: 1.0\n{tag}")
        wheel.writestr(f"{name}.dist-info/RECORD", "")
    for _ in range(2):  # the second call finds what the first one has installed
        done = checkout("--wheels=wheels")
        # scipy too is seen, which only the Python that was given has, a virtual environment itself.
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_real_rows_at_the_smallest_size(tmp_path):
    command = [sys.executable, str(ROOT / "launch" / "gpu_check.py"), f"--out={tmp_path}"]
    command += ["--size=micro", "--only=peak,step-expert,infer", "--minutes=20", "--chip=h100"]
    done = subprocess.run(command, capture_output=True, text=True)
    rows = json.loads((tmp_path / "micro" / "results.json").read_text())["rows"]
    assert done.returncode == 0 and {row["state"] for row in rows.values()} == {"done"}, rows
    step = rows["step-expert"]
    assert step["finite"] and step["batch"] == 4 and step["flops"] > 1e6 and step["memory"] > 1e5
    assert 0 <= step["input"] < 1 and 0 < step["step"][0] <= step["step"][1] <= step["step"][2]
    assert rows["peak"]["matmul"] > 1e9 and rows["infer"]["size"] == 32
    assert rows["infer"]["edit"][0] > 0 and rows["infer"]["networks"][0] > 0
    section = (tmp_path / "micro" / "section.md").read_text()
    assert "h100's data sheet" in section and "Inference at 32 px, 16 frames" in section

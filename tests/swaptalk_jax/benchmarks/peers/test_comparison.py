"""Ours and a peer in turns: the protocol, the errors, what is written; with peers made here."""

import json
import sys
import textwrap
import xml.etree.ElementTree as ET

import pytest

from swaptalk_jax import benchmark
from swaptalk_jax.benchmarks.peers import child, comparison, drawing
from swaptalk_jax.benchmarks.peers.rows import PEERS, ROWS, Row
from swaptalk_jax.benchmarks.peers.theirs import main as theirs
from swaptalk_jax.benchmarks.turns import in_turns
from swaptalk_jax.errors import RunError


def checkout(root, name="taming"):
    """A folder that passes for a peer's checkout."""
    file = root / name / PEERS[name][1]
    file.parent.mkdir(parents=True)
    file.touch()
    return root / name


def peer_script(root, monkeypatch, turn, before=""):
    """Has every peer run a script that does `turn` (a statement) for each line it reads."""
    script = root / "peer.py"
    script.write_text(
        textwrap.dedent(before)
        + "\nimport json, sys\n"
        + "print(json.dumps({'ready': {'fields': json.loads(sys.argv[3])}}), flush=True)\n"
        + f"for count, line in enumerate(sys.stdin, 1):\n    {turn}\n"
    )
    monkeypatch.setattr(child, "SCRIPT", script)


def seconds(value):
    return f"print(json.dumps({{'seconds': {value}}}), flush=True)"


def row(name="a row", fields=None, work=lambda: None):
    """A row whose turn does `work`, two images each."""
    made = {"shape": 3} if fields is None else fields

    def ours(fields):
        assert fields == made
        return (lambda: None), work, {"parameters": 7}

    return Row(name, "taming", "vqgan_forward", ours, lambda count: made, "image", 2)


def test_a_pair_is_begun_by_either_side_in_turn():
    begun = []

    def side(name):
        return lambda: begun.append(name) or float(len(begun))

    pairs = in_turns(side("ours"), side("theirs"), 3)
    assert begun == ["ours", "theirs", "theirs", "ours", "ours", "theirs"]
    assert pairs == [(1.0, 2.0), (4.0, 3.0), (5.0, 6.0)]


def test_a_row_has_each_turn_of_both_sides_and_ratios_pair_by_pair(tmp_path, monkeypatch):
    peer_script(tmp_path, monkeypatch, seconds("2.0 * count"))
    clock = iter([0.0, 1.0, 10.0, 14.0, 20.0, 22.0])
    monkeypatch.setattr(comparison.time, "perf_counter", lambda: next(clock))
    calls = []
    one = row(work=lambda: calls.append(1))
    found = comparison.compare(one, one.fields(2), sys.executable, checkout(tmp_path), 3)
    assert len(calls) == 4  # one before the turns, to be compiled
    assert found["ours"] == [0.5, 2.0, 1.0] and found["theirs"] == [1.0, 2.0, 3.0]
    assert found["ratios"] == [2.0, 1.0, 3.0]  # the peer's time by ours: above 1, ours is faster
    assert found["facts"] == {"ours": {"parameters": 7}, "theirs": {"fields": {"shape": 3}}}
    assert "2.00x (1.00 to 3.00; 3 turns, per image)" in drawing.line(found)


def test_the_command_tells_writes_and_draws_every_row_of_the_peers_named(
    tmp_path, monkeypatch, capsys
):
    peer_script(tmp_path, monkeypatch, seconds("0.5"))
    monkeypatch.setattr(comparison, "ROWS", [row("first"), row("second <&>")])
    folder, out = checkout(tmp_path), tmp_path / "out"
    comparison.run([f"taming:{folder}"], sys.executable, 2, 4, out)
    told = capsys.readouterr().out
    assert told.count("first") == 2 and str(out / "peers.svg") in told
    found = json.loads((out / "peers.json").read_text())
    assert [r["name"] for r in found["rows"]] == ["first", "second <&>"]
    assert found["machine"]["cores"] >= 1 and len(found["rows"][0]["ratios"]) == 2
    picture = ET.fromstring((out / "peers.svg").read_text())
    assert len(picture.findall("{*}circle")) == 2
    assert any("second <&>" in (t.text or "") for t in picture.findall("{*}text"))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "needs a --peer=NAME:CHECKOUT"),
        (["tamming:here"], "--peer=tamming:here: give NAME:FOLDER, with a NAME of taming"),
        (["taming"], "--peer=taming: give NAME:FOLDER"),
        (["taming:nowhere"], "nowhere is no checkout of github.com/CompVis/taming-transformers"),
        (["taming:"], "(no folder) is no checkout"),
    ],
)
def test_wrong_peers_are_refused_in_one_line(words, told):
    with pytest.raises(RunError) as caught:
        comparison.folders(words)
    assert told in str(caught.value) and "\n" not in str(caught.value)


def test_numbers_below_one_and_a_python_that_is_not_there_are_refused_in_one_line(tmp_path):
    words = [f"taming:{checkout(tmp_path)}"]
    with pytest.raises(RunError, match="--turns=0: take 1 or more"):
        comparison.run(words, sys.executable, 0, 4, tmp_path)
    with pytest.raises(RunError, match="--peer_batch=0: take 1 or more"):
        comparison.run(words, sys.executable, 5, 0, tmp_path)
    with pytest.raises(RunError, match="--peer_python=.*nopython does not start"):
        comparison.run(words, tmp_path / "nopython", 1, 4, tmp_path)


@pytest.mark.parametrize(
    ("turn", "before", "told"),
    [
        ("sys.exit(3)", "", "no answer 'seconds'; it ended with exit code 3: and said nothing"),
        ("raise OSError('no\\nroom')", "", "exit code 1: room"),
        ("print('surprise', flush=True)", "", "exit code 0: surprise"),
        (seconds("1"), "raise SystemExit('at once')", "no answer 'ready'; .* 1: at once"),
        ("print(json.dumps({'error': 'too hot'}), flush=True)", "", "the peer taming: too hot"),
    ],
)
def test_a_peer_that_dies_or_babbles_is_one_line(tmp_path, monkeypatch, turn, before, told):
    peer_script(tmp_path, monkeypatch, turn, before)
    with pytest.raises(RunError, match=told) as caught:
        with child.Peer(sys.executable, "taming", tmp_path, "vqgan_forward", {}) as peer:
            peer.turn()
    assert "\n" not in str(caught.value)


def test_a_peer_that_cannot_be_imported_says_what_to_install(tmp_path):
    folder = checkout(tmp_path)
    (folder / "torch.py").write_text("import a_library_of_nobody\n")  # stands before the real one
    with pytest.raises(RunError) as caught:
        comparison.run([f"taming:{folder}"], sys.executable, 1, 4, tmp_path / "out")
    assert str(caught.value) == (
        "the peer taming: needs the module a_library_of_nobody: "
        f"{sys.executable} -m pip install a_library_of_nobody"
    )
    assert not (tmp_path / "out").exists()


def test_tasks_time_their_work_alone(tmp_path, monkeypatch):
    (tmp_path / "slow_task.py").write_text(
        "import time\n"
        "def prepare(fields):\n"
        "    if fields is None:\n        return None\n"
        "    print('a checkout may say what it likes')\n"
        "    return (lambda: time.sleep(0.2)), (lambda: time.sleep(fields['sleep'])), {'kind': 1}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(theirs.TASKS, "slow", ("slow_task", "prepare"))
    told = []
    theirs.run("slow", {"sleep": 0.01}, ["turn", "turn"], told.append)
    assert told[0] == {"ready": {"kind": 1}} and len(told) == 3
    assert all(0.01 <= answer["seconds"] < 0.15 for answer in told[1:])
    told.clear()
    theirs.run("slow", None, ["turn"], told.append)
    assert told == [{"ready": {}}]


def test_every_row_names_a_peer_and_a_task_that_exist():
    assert {one.peer for one in ROWS} == set(PEERS)
    assert {one.task for one in ROWS} == set(theirs.TASKS)


def test_the_command_takes_peers_without_a_config(tmp_path, monkeypatch):
    given = []
    monkeypatch.setattr(comparison, "run", lambda *values: given.append(values))

    class Values:
        kernels, peers = False, True
        peer, peer_python = ["taming:x"], "python"
        turns, peer_batch, out = 5, 4, ""

    assert benchmark.main(Values) == 0
    assert given == [(["taming:x"], "python", 5, 4, benchmark.Path("runs/peers"))]

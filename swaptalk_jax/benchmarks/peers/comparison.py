"""Ours and each peer in turns: ratios pair by pair, as a table, JSON and a plot.

    python -m swaptalk_jax.benchmark --peers --peer=taming:<checkout> --peer_python=<python>

A turn of ours and one of the peer's make a pair; who begins it alternates. The other side's process
waits meanwhile. A ratio is the peer's time by ours: above 1, ours is faster. Medians, least and
greatest are over the pairs.
"""

import dataclasses
import gc
import json
import os
import platform
import tempfile
import time
from pathlib import Path

import jax
import numpy as np

from data_pipelines import files
from swaptalk_jax.benchmarks.peers import drawing
from swaptalk_jax.benchmarks.peers.child import Peer
from swaptalk_jax.benchmarks.peers.rows import MEDIA, PEERS, ROWS
from swaptalk_jax.benchmarks.turns import in_turns
from swaptalk_jax.errors import RunError

BUSY = 2.0  # load by cores, above which other programs have run; ours alone are 1 to 1.5


def run(named, python, turns, batch, out):
    """Compares ours with the peers that are named; prints the table, writes peers.json and .svg.

    named: ["taming:<checkout>", ...]. python: a program with PyTorch. turns: of each row, 1 or
    more. batch: at most so many pictures or frames a turn. out: a folder; what was measured is
    written after each row. Raises RunError, in one line, where a peer cannot be run; that is found
    before anything is measured.
    """
    for name, value in (("turns", turns), ("peer_batch", batch)):
        if value < 1:
            raise RunError(f"--{name}={value}: take 1 or more")
    if jax.default_backend() != "cpu":
        raise RunError("--peers compares on the CPU: set JAX_PLATFORMS=cpu")
    checkouts = folders(named)
    rows = [row for row in ROWS if row.peer in checkouts]
    for row in rows:
        Peer(python, row.peer, checkouts[row.peer], row.task, None).close()
    found = []
    with tempfile.TemporaryDirectory() as scratch:
        places = {}
        if any(row.media for row in rows):
            MEDIA(scratch)
            places = {name: f"{scratch}/{name}" for name in ("records", "media")}
        for row in rows:
            if not row.media:
                row = dataclasses.replace(row, count=min(row.count, batch))
            fields = row.fields(row.count) | (places if row.media else {})
            measured = compare(row, fields, python, checkouts[row.peer], turns)
            found.append(measured)
            print(drawing.line(measured), flush=True)
            text = json.dumps({"machine": machine(), "rows": found}, indent=1)
            files.replace(out / "peers.json", text.encode())
            files.replace(out / "peers.svg", drawing.plot(found).encode())
            gc.collect()
            jax.clear_caches()
    print("\n".join(drawing.table(found)))
    cores = machine()["cores"]
    busy = [row["load"] for row in found if row["load"] > BUSY * cores]
    if busy:
        print(
            f"load up to {max(busy):.1f} on {cores} cores: other programs ran beside these; that"
            " slows PyTorch's threads, which wait for one another, more than ours"
        )
    print(f"{out / 'peers.svg'} draws it")


def folders(named):
    """{peer: its folder} of words like taming:<checkout>. Raises RunError, in one line."""
    found = {}
    for word in named:
        name, colon, folder = word.partition(":")
        if name not in PEERS or not colon:
            raise RunError(f"--peer={word}: give NAME:FOLDER, with a NAME of {', '.join(PEERS)}")
        repository, file = PEERS[name]
        if not (Path(folder) / file).is_file():
            raise RunError(
                f"--peer={word}: {folder or '(no folder)'} is no checkout of {repository}"
            )
        found[name] = Path(folder).absolute()
    if not found:
        raise RunError(f"--peers needs a --peer=NAME:CHECKOUT; names are {', '.join(PEERS)}")
    return found


def compare(row, fields, python, checkout, turns):
    """One row measured: names, seconds a unit of each turn of both sides, ratios, facts."""
    settle, work, facts = row.ours(fields)
    work()  # compiled, memory is taken
    with Peer(python, row.peer, checkout, row.task, fields) as peer:

        def our_turn():
            settle()
            began = time.perf_counter()
            work()
            return time.perf_counter() - began

        taken = in_turns(our_turn, peer.turn, turns)
        busy = os.getloadavg()[0]
    mine, theirs = (np.array(times) / row.count for times in zip(*taken, strict=True))
    return {
        "name": row.name,
        "peer": row.peer,
        "unit": row.unit,
        "count": row.count,
        "ours": mine.tolist(),
        "theirs": theirs.tolist(),
        "ratios": (theirs / mine).tolist(),
        "load": busy,
        "facts": {"ours": facts, "theirs": peer.facts},
        "fields": {k: v for k, v in fields.items() if k not in ("records", "media")},
    }


def machine():
    """What the numbers depend on: processor, cores, version of JAX."""
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "jax": jax.__version__,
    }

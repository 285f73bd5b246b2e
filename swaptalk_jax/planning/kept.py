"""Outcomes of ahead.outcome that a file keeps, so that a long table that was stopped goes on."""

import dataclasses
import functools
import hashlib
import json
import threading
from importlib import metadata
from pathlib import Path

from swaptalk_jax.costs import count
from swaptalk_jax.costs.causes import Cause
from swaptalk_jax.planning.abstract import reads
from swaptalk_jax.planning.ahead import Outcome

ROOT = Path(__file__).resolve().parents[2]
COMPILER = ("jax", "jaxlib", "libtpu", "flax", "optax")


class Outcomes:
    """Outcomes by the arguments of ahead.outcome, a line each of the file `path`; None: no file.

    They are found again by the same compiler, the same code and the same networks and data in the
    config's folders only. Threads may share it.
    """

    def __init__(self, path: Path | None):
        self.path, self.lock, self.outcomes = path, threading.Lock(), {}
        if path and path.exists():
            for line in path.read_text().splitlines():
                self.outcomes.update(_read(line))

    def get(self, job) -> Outcome | None:
        """The Outcome of a job, or None where the file has none."""
        return self.outcomes.get(_key(*job))

    def put(self, job, outcome: Outcome) -> Outcome:
        """Keeps an Outcome, and returns it."""
        line = json.dumps({"key": _key(*job), **dataclasses.asdict(outcome)})
        with self.lock:
            self.outcomes.update(_read(line))
            if self.path:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                with self.path.open("a") as file:
                    file.write(f"{line}\n")
        return outcome


def _read(line):
    """{key: Outcome}; {}: the line was cut short."""
    try:
        row = json.loads(line)
    except ValueError:
        return {}
    costs = row["costs"] and count.from_dict(row["costs"])
    found = {name: Cause(**values) for name, values in row.get("causes", {}).items()}
    return {row["key"]: Outcome(costs, row["used"], found)}


def _key(config, upstream, size, target, batch_size, code=False):
    configs = [config, *(upstream[name] for name in sorted(upstream))]
    plain = [c.to_json() for c in configs]
    files = [(str(path), _stamp(path)) for c in configs for path in reads(c)]
    values = (plain, sorted(upstream), files, size, target.name, batch_size, code, _state())
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()


def _stamp(path):
    """Tells one state of a file from another; None: it isn't there."""
    if not path.exists():
        return None
    status = path.stat()
    return status.st_size, status.st_mtime_ns


@functools.cache
def _state():
    """What results depend on beside their job."""
    versions = {d.metadata["Name"]: d.version for d in metadata.distributions()}
    sources = sorted(
        p for f in ("swaptalk_jax", "data_pipelines") for p in (ROOT / f).rglob("*.py")
    )
    digests = [hashlib.sha256(p.read_bytes()).hexdigest() for p in sources]
    return [versions.get(name) for name in COMPILER] + digests

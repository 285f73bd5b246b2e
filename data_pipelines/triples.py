"""Which faces are swapped onto which, and the proxy swapper's results of them.

Pairs are random: source and target are frames of two different identities of one split.
"""

import collections
import dataclasses
import pathlib

import cv2
import numpy as np

from data_pipelines import proxy, records

CHUNK = 32  # pairs per job: opening the shards costs as much as one of them


@dataclasses.dataclass(frozen=True)
class Run:
    """A clip as `frames` holds it: records first ... first + count - 1 of its split."""

    identity: int
    first: int
    count: int
    synthetic: dict | None  # how to draw the clip again, see synthetic.clip_of


@dataclasses.dataclass(frozen=True)
class Pair:
    """One triple to make: indices into `frames` of a split, identities, and how to draw them."""

    source: int
    target: int
    source_identity: int
    target_identity: int
    source_synthetic: dict | None
    target_synthetic: dict | None


def plan(runs: list[Run], count: int, seed: tuple[int, ...]) -> list[Pair]:
    """`count` random pairs, or none where there are fewer than two identities.

    Identities are equally likely, and the frames of each, whatever the lengths of the clips.
    """
    rng = np.random.default_rng(seed)
    own = collections.defaultdict(list)
    for run in runs:
        own[run.identity].append(run)
    ends = {identity: np.cumsum([run.count for run in own[identity]]) for identity in own}
    identities = sorted(own)

    def frame(identity):
        k = int(rng.integers(ends[identity][-1]))
        i = int(np.searchsorted(ends[identity], k, side="right"))
        run = own[identity][i]
        return run.first + k - int(ends[identity][i]) + run.count, run.synthetic

    pairs = []
    for _ in range(count if len(identities) > 1 else 0):
        a, b = (identities[i] for i in rng.choice(len(identities), 2, replace=False))
        (source, source_drawn), (target, target_drawn) = frame(a), frame(b)
        pairs.append(Pair(source, target, a, b, source_drawn, target_drawn))
    return pairs


def swap(root: pathlib.Path, split: str, swapper: str, pairs: list[Pair]) -> list[bytes | None]:
    """Encoded results of a proxy swapper on pairs; None where it could not do one.

    root: the folder of `frames`; swapper: a name of proxy.PROXIES. Runs in a build process.
    """
    frames = records.source(root, "frames", split)
    results = []
    for pair in pairs:
        source = _face(frames[pair.source], pair.source_synthetic)
        target = _face(frames[pair.target], pair.target_synthetic)
        try:
            result = proxy.PROXIES[swapper](source, target)
        except (cv2.error, np.linalg.LinAlgError):  # degenerate faces, e.g. seen from the side
            result = None
        results.append(None if result is None else records.encode_image(result))
    return results


def _face(record, synthetic):
    meta = {}
    if synthetic is not None:
        drawn = synthetic | {"frame": int(record["frame"])}
        meta = {"synthetic": drawn, "matrix": record["matrix"]}
    return proxy.Face(records.decode_image(record["image"]), record["landmarks"], meta)

"""Which faces are swapped onto which, and the proxy swapper's results of them.

Source and target are frames of two different identities of one split. Most pairs look the same way
under the same light, because a proxy swapper that only warps and blends does well there; the rest
are left to chance, because the photo that a user brings looks any way.
"""

import dataclasses
import pathlib

import cv2
import numpy as np
from scipy.optimize import linear_sum_assignment

from data_pipelines.proxies import choice
from data_pipelines.records import kinds, reader

# Frames of each identity that are looked at to find one that fits a target. On 99 real clips, 10
# people in 3000 pairs, yaw and pitch together are 16.6 degrees apart by chance, and with so many
# candidates 6.3. With 4 they are 7.8, with 64 5.3, but of the same few frames again and again.
CANDIDATES = 16
# Every fourth round of pairs is left to chance. Without it 25 of the 90 ordered pairs of those ten
# never met; with it all do, and three of four results are still of the pairs that a warp does best.
CHANCE = 4
# Differences of these sizes count alike: yaw and pitch in degrees (alignment takes the roll away),
# luma, left-right and top-bottom light. Two random real frames differ by about as much.
UNITS = np.array([10, 10, 0.1, 0.2, 0.1], np.float32)


@dataclasses.dataclass(frozen=True)
class Run:
    """A clip as `frames` holds it: records first ... first + count - 1 of its split.

    pose: float32 [count 3] yaw, pitch, roll in degrees of each frame; light: float32 [3] luma 0..1,
    left-right and top-bottom of the clip. None or NaN where unknown: then any other fits it.
    """

    identity: int
    first: int
    count: int
    synthetic: dict | None = None  # how to draw the clip again, see sampling.clip_of
    pose: np.ndarray | None = None
    light: np.ndarray | None = None


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
    """`count` pairs, or none where there are fewer than two identities; a function of arguments.

    In rounds: each identity is the target once and the source once, whatever the lengths of its
    clips. Targets are random frames. Of each identity CANDIDATES random frames are offered as
    sources, and the round takes the one-to-one assignment with the least squared difference of
    pose and light over all its pairs (Hungarian algorithm); every CHANCE-th round takes any.
    """
    rng = np.random.default_rng(seed)
    table = _Table(runs)
    n = len(table.identities)
    if n < 2:
        return []
    pairs = []
    for number in range(-(-count // n)):
        order = rng.permutation(n)
        targets, candidates = table.draw(rng, 1)[:, 0], table.draw(rng, CANDIDATES)
        if number % CHANCE == CHANCE - 1:
            partner = np.empty(n, int)
            partner[order] = np.roll(order, 1)  # a ring in random order: nobody meets himself
            sources = candidates[partner, 0]
        else:
            sources = table.assigned(rng, targets, candidates)
        pairs += [table.pair(sources[i], targets[i]) for i in order]
    return pairs[:count]


class _Table:
    """Every frame of the runs in one table, the frames of an identity side by side."""

    def __init__(self, runs):
        self.runs = sorted(runs, key=lambda run: (run.identity, run.first))
        self.run = np.repeat(np.arange(len(self.runs)), [run.count for run in self.runs])
        offsets = np.cumsum([0] + [run.count for run in self.runs])
        self.place = np.arange(len(self.run)) - offsets[self.run]  # of a frame in its run
        self.look = np.concatenate([_look(run) for run in self.runs] or [np.empty((0, 5))])
        owner = np.array([run.identity for run in self.runs], int)[self.run]
        self.identities, self.first, self.count = np.unique(
            owner, return_index=True, return_counts=True
        )

    def draw(self, rng, k):
        """k random frames of each identity: int [n k], rows of the table."""
        uniform = rng.random((len(self.identities), k))
        return self.first[:, None] + (uniform * self.count[:, None]).astype(int)

    def assigned(self, rng, targets, candidates):
        """The frames of `candidates` [n k] that go with `targets` [n], one of each identity."""
        n = len(targets)
        apart = np.empty((n, n))
        best = np.empty((n, n), int)
        offered = self.look[candidates]
        for i, look in enumerate(self.look[targets]):  # all at once would take n n k numbers
            distance = np.square(np.nan_to_num(offered - look)).sum(-1)
            best[i] = distance.argmin(1)
            apart[i] = distance.min(1)
        apart += 1e-3 * rng.random((n, n))  # between equals, e.g. all unknown, chance decides
        np.fill_diagonal(apart, np.inf)
        _, partner = linear_sum_assignment(apart)
        return candidates[partner, best[np.arange(n), partner]]

    def pair(self, source, target):
        a, b = self.runs[self.run[source]], self.runs[self.run[target]]
        indices = (int(run.first + self.place[i]) for run, i in ((a, source), (b, target)))
        return Pair(*indices, a.identity, b.identity, a.synthetic, b.synthetic)


def _look(run):
    """Pose and light of a run's frames in UNITS: float32 [count 5], NaN where unknown."""
    look = np.full((run.count, len(UNITS)), np.nan, np.float32)
    if run.pose is not None:
        look[:, :2] = run.pose[:, :2]
    if run.light is not None:
        look[:, 2:] = run.light
    return look / UNITS


def swap(
    root: pathlib.Path, split: str, swapper: choice.Proxy, pairs: list[Pair]
) -> list[bytes | None]:
    """Encoded results of a proxy swapper on pairs; None where it could not do one.

    root: the folder of `frames`; swapper: of choice.make, which pickles. A pair that fails is left
    out and not replaced: it fails on every run, since swappers are functions of the two faces, so
    a shard that is made again has the same records.
    """
    frames = reader.source(root, "frames", split)
    results = []
    for pair in pairs:
        source = _face(frames[pair.source], pair.source_synthetic)
        target = _face(frames[pair.target], pair.target_synthetic)
        try:
            result = swapper(source, target)
        except (cv2.error, np.linalg.LinAlgError):  # degenerate faces, e.g. seen from the side
            result = None
        results.append(None if result is None else kinds.encode_image(result))
    return results


def _face(record, synthetic):
    meta = {}
    if synthetic is not None:
        drawn = synthetic | {"frame": int(record["frame"])}
        meta = {"synthetic": drawn, "matrix": record["matrix"]}
    return choice.Face(kinds.decode_image(record["image"]), record["landmarks"], meta)

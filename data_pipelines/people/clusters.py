"""Faces and names of clips -> people, what hangs together, and what of that somebody should see.

A clip is its index here: `names` and `videos` are lists of strings, `faces` float64 [n 128] of
length 1 with NaN where a clip has no embedding. A person is a sorted list of indices.
"""

import collections
import itertools

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import cdist, pdist

LARGEST = 10_000  # people in one table of distances, which then takes 400 MB
STRICTER = 0.95
SAME_PICTURE = 0.02  # copies of one picture are nearer; a limit below tells nobody apart
BLOCK = 1000  # people compared with all others at once
CLOSEST = 1000  # rows of two people who may be one


def unit(embeddings):
    """Scaled to length 1 along the last axis."""
    return embeddings / np.linalg.norm(embeddings, axis=-1, keepdims=True)


def clusters(names, videos, faces, same):
    """List of people: clips whose mean faces are closer than `same`, by average linkage.

    Joined within each video, then within each name, then over all, so that one bad clip is
    outvoted where it stands before it can link two people, and so that the tables of distances
    stay small: a side of the last one is the number of people, not of clips.
    """
    people = [[i] for i in range(len(names)) if np.isfinite(faces[i, 0])]
    for depth in (2, 1, 0):
        parts = collections.defaultdict(list)
        for person in people:
            parts[(names[person[0]], videos[person[0]])[:depth]].append(person)
        people = [joined for part in parts.values() for joined in _joined(part, faces, same)]
    return sorted(people)


def _joined(people, faces, same):
    if len(people) < 2:
        return people
    means, joined = _means(people, faces), []
    for part in _components(means, same):
        numbers = [0]
        if len(part) > 1:
            numbers = fcluster(linkage(means[part], "average"), same, "distance")
        own = collections.defaultdict(list)
        for i, number in zip(part, numbers, strict=True):
            own[number] += people[i]
        joined += [sorted(person) for person in own.values()]
    return joined


def _components(means, below):
    """Lists of indices of means [n 128] that hang together by distances under `below`.

    Average linkage never joins across them, so the table of distances is one of each, and 70,000
    portraits fit. Strangers who look alike make chains among so many: one longer than LARGEST is
    cut by a stricter limit, until its table fits.
    """
    count = len(means)
    ends = neighbours(means, below)
    graph = coo_array((np.ones(len(ends)), tuple(ends.T)), shape=(count, count))
    component = connected_components(graph, directed=False)[1]
    order = np.argsort(component, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(component[order])) + 1)
    for part in parts:
        if len(part) <= LARGEST or below < SAME_PICTURE:
            yield from (part[i : i + LARGEST].tolist() for i in range(0, len(part), LARGEST))
            continue
        for smaller in _components(means[part], STRICTER * below):
            yield part[smaller].tolist()


def neighbours(means, below):
    """All pairs (a, b), a < b, of means [n 128] of length 1 that are nearer than `below`: [m 2]."""
    found = [np.empty((0, 2), np.int64)]
    for first in range(0, len(means), BLOCK):
        # By their cosines; a hair more, as cdist would round otherwise.
        cosines = means[first : first + BLOCK] @ means[first:].T
        a, b = np.nonzero(cosines > 1 - below**2 / 2 - 1e-9)
        found.append(np.stack([a, b], 1)[a < b] + first)
    pairs = np.concatenate(found)
    near = np.linalg.norm(means[pairs[:, 0]] - means[pairs[:, 1]], axis=1) < below
    return pairs[near]


def _means(people, faces):
    return unit(np.stack([faces[person].mean(axis=0) for person in people]))


def groups(names, people):
    """The group of each clip: names that share a person, through others too.

    A group is called after the alphabetically first of its names.
    """
    known = sorted(set(names))
    number = {name: i for i, name in enumerate(known)}
    edges = [
        (number[names[a]], number[names[b]])
        for person in people
        for a, b in itertools.pairwise(person)
    ]
    ends = np.array(edges, int).reshape(-1, 2).T
    graph = coo_array((np.ones(len(edges)), tuple(ends)), shape=(len(known), len(known)))
    component = connected_components(graph, directed=False)[1]
    first = {}
    for name, part in zip(known, component, strict=True):
        first.setdefault(part, name)
    return [first[component[number[name]]] for name in names]


def labels(names, clips, people):
    """(the label of each clip, names of which no person has most of the clips).

    clips: unique strings. A person is called by the name that they have most alone. Where they are
    not most of that name, their first clip is added. Clips without a face count as the person whom
    most clips of their name show, or keep the name.
    """
    totals = collections.Counter(names[i] for person in people for i in person)
    result, main = list(names), {}
    for person in people:
        shares = collections.Counter(names[i] for i in person)
        shares = {name: count / totals[name] for name, count in shares.items()}
        name = min(shares, key=lambda name: (-shares[name], name))
        label = name if shares[name] > 0.5 else f"{name}~{clips[person[0]]}"
        for i in person:
            result[i] = label
        main.update({name: label for name, share in shares.items() if share > 0.5})
    for i in set(range(len(names))).difference(*people):
        result[i] = main.get(names[i], names[i])
    return result, totals.keys() - main.keys()


def nearest(first, second, faces):
    """(clip of `first`, clip of `second`, their distance): the two most alike."""
    distances = cdist(faces[first], faces[second])
    a, b = np.unravel_index(distances.argmin(), distances.shape)
    return first[a], second[b], float(distances[a, b])


def merged(names, videos, faces, people):
    """Rows of people who have several names; distance: the largest between two names' faces."""
    rows = []
    for person in people:
        parts = _parts(person, names)
        if len(parts) > 1:
            rows.append(_row(list(parts), list(parts.values()), videos, faces, max))
    return rows


def divided(names, videos, faces, people):
    """Rows of names that are several people; distance: the smallest between two of them."""
    shown = collections.defaultdict(list)
    for person in people:
        for name, part in _parts(person, names).items():
            shown[name].append(part)
    return [
        _row([name], parts, videos, faces, min)
        for name, parts in sorted(shown.items())
        if len(parts) > 1
    ]


def close(labels, splits, videos, faces, people, below):
    """Rows of two people who are nearer than `below`, nearest first, with labels and splits.

    Of more than CLOSEST the nearest.
    """
    if len(people) < 2:
        return []
    means, rows = _means(people, faces), []
    pairs = neighbours(means, below)
    distances = np.linalg.norm(means[pairs[:, 0]] - means[pairs[:, 1]], axis=1)
    for a, b in pairs[np.sort(np.argsort(distances, kind="stable")[:CLOSEST])]:
        pair = [people[a], people[b]]
        row = _row([labels[person[0]] for person in pair], pair, videos, faces, min)
        rows.append(row | {"splits": [splits[person[0]] for person in pair]})
    return sorted(rows, key=lambda row: (row["distance"], row["identities"]))


def _parts(person, names):
    """The clips of a person by name, in alphabetical order."""
    parts = collections.defaultdict(list)
    for i in person:
        parts[names[i]].append(i)
    return dict(sorted(parts.items()))


def _row(names, parts, videos, faces, pick):
    """Of each part (a list of clips), the video that is most like the other parts."""
    means = _means(parts, faces)
    shown = []
    for k, part in enumerate(parts):
        others = np.delete(means, k, axis=0).mean(axis=0)
        shown.append(videos[part[int(np.linalg.norm(faces[part] - others, axis=1).argmin())]])
    return {"identities": names, "videos": shown, "distance": round(float(pick(pdist(means))), 3)}

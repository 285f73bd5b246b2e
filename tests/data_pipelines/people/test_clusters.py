"""People of faces: the same as by one table of all distances, without ever holding it."""

import collections

import numpy as np
import pytest
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import pdist, squareform

from data_pipelines.people import clusters


@pytest.fixture(scope="module")
def faces():
    """120 faces of 40 people, three of each, some people near others: [120 128]."""
    rng = np.random.default_rng(0)
    people = np.repeat(rng.normal(size=(40, 128)), 3, axis=0)
    people[60:] = 0.75 * people[:60] + 0.66 * people[60:]
    return clusters.unit(people + 0.35 * rng.normal(size=people.shape))


def by_one_table(faces, same):
    numbers = fcluster(linkage(faces, "average"), same, "distance")
    people = collections.defaultdict(list)
    for i, number in enumerate(numbers):
        people[number].append(i)
    return sorted(people.values())


@pytest.mark.parametrize("same", [0.3, 0.45, 0.5, 0.6, 0.8, 1.0])
def test_parts_are_joined_as_the_whole_would_be(faces, same):
    names = [str(i) for i in range(len(faces))]
    assert clusters.clusters(names, names, faces, same) == by_one_table(faces, same)


@pytest.mark.parametrize("block", [7, 1000])
def test_neighbours_are_those_of_the_whole_table(faces, monkeypatch, block):
    monkeypatch.setattr(clusters, "BLOCK", block)
    for below in (0.01, 0.5, 0.9):
        told = np.argwhere(np.triu(squareform(pdist(faces)) < below, k=1))
        found = clusters.neighbours(faces, below)
        assert sorted(map(tuple, found)) == sorted(map(tuple, told))


def test_a_chain_too_long_for_a_table_is_cut_by_a_stricter_limit(faces, monkeypatch):
    monkeypatch.setattr(clusters, "LARGEST", 10)
    parts = list(clusters._components(faces, 1.2))
    assert max(map(len, parts)) <= 10 and sorted(sum(parts, [])) == list(range(len(faces)))
    for i in range(0, 120, 3):  # the three of one person are nearest to each other
        assert any({i, i + 1, i + 2} <= set(part) for part in parts)


def test_many_copies_of_one_picture_end(faces, monkeypatch):
    monkeypatch.setattr(clusters, "LARGEST", 10)
    parts = list(clusters._components(np.repeat(faces[:1], 25, axis=0), 0.5))
    assert [len(part) for part in parts] == [10, 10, 5]


def test_of_many_who_look_alike_the_nearest_are_told(faces, monkeypatch):
    people, labels = [[i] for i in range(len(faces))], [str(i) for i in range(len(faces))]
    rows = clusters.close(labels, labels, labels, faces, people, 0.9)
    monkeypatch.setattr(clusters, "CLOSEST", 5)
    assert clusters.close(labels, labels, labels, faces, people, 0.9) == rows[:5]

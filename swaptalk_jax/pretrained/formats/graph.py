"""What the readers of graphs give: constants, and the operations in the file's order."""

import dataclasses

import numpy as np

NODES, TENSORS = 10_000, 100_000  # of a graph; ArcFace's largest has about 700 operations


@dataclasses.dataclass(frozen=True)
class Node:
    """An operation: names of what it reads and makes, attributes as Python values."""

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict


@dataclasses.dataclass(frozen=True)
class Graph:
    """inputs: names of what is fed; tensors: the constants by name; nodes in the file's order."""

    inputs: tuple[str, ...]
    tensors: dict[str, np.ndarray]
    nodes: tuple[Node, ...]


def check_counts(nodes, tensors):
    """Refuses graphs that are empty, or larger than any network that is read here.

    Raises ValueError.
    """
    if not nodes:
        raise ValueError("no operations in it")
    if nodes > NODES or tensors > TENSORS:
        raise ValueError(f"{nodes} operations and {tensors} tensors are too many")

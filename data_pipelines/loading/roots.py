"""The record sets that a stage trains on: `data.root`, and those of `data.extra` beside it.

`data.extra` is a tuple of (root, weight): of every 1 + w1 + w2 + ... training examples one is of
`data.root`, and w1, w2, ... are of the others, whatever their sizes. Evaluation reads `data.root`
alone. People of two roots are taken for different ones; nobody compares their faces, so whoever
adds a root keeps the people of the first one's validation out of it.

    --config.data.extra="(('more/codes', 0.5),)"
"""

from collections.abc import Mapping
from typing import Any

from data_pipelines.loading import views
from data_pipelines.records import kinds, reader

# What must be the same in all sets of a kind that one network trains on.
ALIKE = {
    "frames": ("size",),
    "codes": ("fingerprint", "grid", "audio", "audio_fingerprint", "audio_width"),
    "swaps": ("fingerprint", "recogniser", "grid", "embedding"),
}
IDENTITIES = ("identity", "source_identity", "target_identity")  # fields of examples


def weighted(config: Mapping[str, Any]) -> list[tuple[str, float]]:
    """The roots of a data config with their weights, `data.root` first with 1.

    Raises RecordError: `extra` is no tuple of (root, weight), a weight is not above 0, or a root is
    named twice.
    """
    found = [(str(config["root"]), 1.0)]
    for entry in config.get("extra", ()):
        pair = isinstance(entry, list | tuple) and len(entry) == 2
        if not pair or not isinstance(entry[0], str) or not isinstance(entry[1], int | float):
            raise kinds.RecordError(
                f"config.data.extra has {entry!r}; give a tuple of (root, weight), as in"
                " (('more/codes', 0.5),)"
            )
        root, weight = entry[0], float(entry[1])
        if not 0 < weight < float("inf"):
            raise kinds.RecordError(
                f"config.data.extra: {root} has the weight {weight}, not above 0"
            )
        if root in dict(found):
            raise kinds.RecordError(f"config.data.extra: {root} is named twice, or is data.root")
        found.append((root, weight))
    return found


def opened(config: Mapping[str, Any], split: str, view: str) -> list[tuple[Any, float, int]]:
    """(view, weight, offset of its identities) of each root, `data.root` first.

    Raises RecordError: as `weighted`; a set is not there, or is of another kind than the first.
    """
    kind, first, result, offset = views.VIEWS[view].kind, None, [], 0
    for root, weight in weighted(config):
        known = reader.metadata(root, kind)
        first = first or known
        for name in ALIKE[kind]:
            if known.get(name) != first.get(name):
                raise kinds.RecordError(
                    f"{root}/{kind}: its {name} is {known.get(name)}, but that of"
                    f" {config['root']}/{kind} is {first.get(name)}; one network cannot train on"
                    " both, so make them alike or take it out of config.data.extra"
                )
        result.append((views.VIEWS[view](dict(config) | {"root": root}, split), weight, offset))
        offset += len(known["identities"])
    return result


def metadata(config: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """Metadata of a kind of `data.root`, with the identities of all roots, in order.

    Raises RecordError as `weighted`.
    """
    several = [reader.metadata(root, kind) for root, _ in weighted(config)]
    return several[0] | {"identities": [name for one in several for name in one["identities"]]}

"""What a batch of each view looks like, where there is no data: for compiling ahead of time.

Nothing is declared here: a blank record of the kind is made from its declaration (records.py),
written, and read through the view itself (views.py).
"""

import tempfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from data_pipelines.loading import views
from data_pipelines.records import kinds, shards


def example(view: str, config: Mapping[str, Any], metadata: Mapping[str, Any]) -> dict[str, Any]:
    """A blank example of a view: {name: array}, a row of what the loader's batches hold.

    Args:
      view: images | pairs | windows | swaps.
      config: the data config, see loader.py; its `root` is not read.
      metadata: of the record set, as far as shapes depend on it: `size` (images), `grid`,
        `audio_width` and `embedding` (the others).

    Raises:
      KeyError: there is no such view, or the metadata lacks what its records need.
    """
    kind = views.VIEWS[view].kind
    known = {name: 0 for name in kinds.REQUIRED[kind]} | {"identities": [""]} | dict(metadata)
    with tempfile.TemporaryDirectory() as root:
        made = shards.Shards(root, kind, known)
        made.write("train", 0, [kinds.blank(kind, known, 2 * config.get("window", 5))])
        made.publish({"train": 1})
        found = views.VIEWS[view](dict(config) | {"root": root}, "train").fixed(0, 0, 0)
    return {name: np.asarray(value) for name, value in found.items()}

"""Codes and embeddings of a split's frames, kept in files while the sets are made."""

import bisect

import numpy as np

from data_pipelines import files
from data_pipelines.records import reader


class Latents:
    """Codes and embeddings of the frames of a split, kept in files beside the shards of codes.

    A triple names two frames anywhere in the split, whose codes would fill the memory.
    """

    def __init__(self, folder, split, clips):
        """folder: of the files; clips: records of the split."""
        self.folder, self.split = folder, split
        lengths = reader.splits(clips.root, "clips")[split]
        starts = np.concatenate([[0], np.cumsum(lengths)])
        self.clips = [range(a, b) for a, b in zip(starts[:-1], starts[1:], strict=True)]
        self.firsts = [int(clips[own[0]]["first"]) for own in self.clips]
        self._open = {}

    def path(self, name, shard):
        """Where codes or embeddings of the frames of a shard of clips lie, float or uint16 .npy."""
        return self.folder / f"{self.split}-{shard}-{name}.npy"

    def save(self, shard, codes, embeddings):
        """Keeps what the encoder made of the frames of a shard of clips."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for name, array in (("codes", codes), ("embeddings", embeddings)):
            with files.replacing(self.path(name, shard)) as part:
                np.save(part, array)

    def __getitem__(self, frame):
        """(codes [h w], embedding [e]) of a frame's index in its split."""
        shard = bisect.bisect_right(self.firsts, int(frame)) - 1
        if shard not in self._open:
            self._open[shard] = [
                np.load(self.path(name, shard), mmap_mode="r") for name in ("codes", "embeddings")
            ]
        return [np.array(array[int(frame) - self.firsts[shard]]) for array in self._open[shard]]

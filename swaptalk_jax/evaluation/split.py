"""The validation split as the measures see it, and the arithmetic they share."""

import numpy as np

from data_pipelines.records import kinds, reader
from swaptalk_jax.weights import encoded


class ValidationSplit:
    """The split "val" of a data set and of its codes: people whom training never saw.

    data: root of frames and triples; codes: root of codes and swaps. perceptual: what
    metrics.perceptual looks with (its Perceptual); None: nothing.
    Raises RecordError: missing, of another VQGAN, another image size or other audio features.
    """

    def __init__(self, pipe, data, codes, perceptual=None):
        for kind in ("codes", "swaps"):
            encoded.check_fingerprint(codes, kind, pipe.config["vqgan"])
        encoded.check(codes, pipe.features)
        if (found := reader.metadata(data, "frames")["size"]) != pipe.size:
            raise kinds.RecordError(
                f"{data}/frames: size is {found}, but the bundle's is {pipe.size}"
            )
        self.codes_root, self.perceptual = codes, perceptual
        self.frames = reader.source(data, "frames", "val")
        self.triples = reader.source(data, "triples", "val")
        self.swaps = reader.source(codes, "swaps", "val")
        if len(self.triples) != len(self.swaps):
            raise kinds.RecordError(
                f"{data} has {len(self.triples)} triples, {codes} {len(self.swaps)}; encode again"
            )
        source = reader.source(codes, "codes", "val")
        # 2 KB a frame: all of HDTF's validation split fits in 100 MB.
        self.clips = sorted((source[i] for i in range(len(source))), key=lambda c: c["first"])
        self.gallery = None  # of our own recogniser; metrics.latent_space makes it

    def images(self, rows):
        """(aligned crops uint8 [n s s 3], records) of some frames."""
        found = [self.frames[i] for i in rows]
        return np.stack([kinds.decode_image(frame["image"]) for frame in found]), found

    def swapped(self, rows):
        """(swaps as a dict of arrays, proxy's results uint8 [n s s 3]) of some triples.

        `source_frame` and `target_frame` [n] are added: indices of the frames.
        """
        triples, swaps = [self.triples[i] for i in rows], [self.swaps[i] for i in rows]
        batch = {key: np.stack([swap[key] for swap in swaps]) for key in swaps[0]}
        for side in ("source", "target"):
            batch[f"{side}_frame"] = np.array([int(triple[side]) for triple in triples])
        return batch, np.stack([kinds.decode_image(triple["result"]) for triple in triples])

    def place(self, index):
        """(clip, position in it) of a frame."""
        firsts = [clip["first"] for clip in self.clips]
        clip = int(np.searchsorted(firsts, index, side="right")) - 1
        return self.clips[clip], int(index - firsts[clip])

"""The validation split as the measures see it, and the arithmetic they share."""

import collections

import numpy as np

from data_pipelines import records
from swaptalk_jax import speech


class Validation:
    """The split "val" of a data set and of its codes: people whom training never saw.

    data: root of frames and triples; codes: root of codes and swaps.
    Raises RecordError: missing, of another VQGAN, another image size or other audio features.
    """

    def __init__(self, pipe, data, codes):
        for kind in ("codes", "swaps"):
            records.check_fingerprint(codes, kind, pipe.config["vqgan"])
        speech.check(codes, pipe.features)
        if (found := records.metadata(data, "frames")["size"]) != pipe.size:
            raise records.RecordError(
                f"{data}/frames: size is {found}, but the bundle's is {pipe.size}"
            )
        self.codes_root = codes
        self.frames = records.source(data, "frames", "val")
        self.triples = records.source(data, "triples", "val")
        self.swaps = records.source(codes, "swaps", "val")
        if len(self.triples) != len(self.swaps):
            raise records.RecordError(
                f"{data} has {len(self.triples)} triples, {codes} {len(self.swaps)}; encode again"
            )
        source = records.source(codes, "codes", "val")
        # 2 KB a frame: all of HDTF's validation split fits in 100 MB.
        self.clips = sorted((source[i] for i in range(len(source))), key=lambda c: c["first"])
        self.gallery = None  # of our own recogniser; measures.latent_space makes it

    def images(self, rows):
        """(aligned crops uint8 [n s s 3], records) of some frames."""
        found = [self.frames[i] for i in rows]
        return np.stack([records.decode_image(frame["image"]) for frame in found]), found

    def swapped(self, rows):
        """(swaps as a dict of arrays, proxy's results uint8 [n s s 3]) of some triples.

        `source_frame` and `target_frame` [n] are added: indices of the frames.
        """
        triples, swaps = [self.triples[i] for i in rows], [self.swaps[i] for i in rows]
        batch = {key: np.stack([swap[key] for swap in swaps]) for key in swaps[0]}
        for side in ("source", "target"):
            batch[f"{side}_frame"] = np.array([int(triple[side]) for triple in triples])
        return batch, np.stack([records.decode_image(triple["result"]) for triple in triples])

    def place(self, index):
        """(clip, position in it) of a frame."""
        firsts = [clip["first"] for clip in self.clips]
        clip = int(np.searchsorted(firsts, index, side="right")) - 1
        return self.clips[clip], int(index - firsts[clip])


class Gallery:
    """The mean embedding of each identity, to tell whose face another one is.

    embeddings float32 [n e] of identities int32 [n].
    """

    def __init__(self, embeddings, identities):
        self.identities = np.unique(identities)
        means = [embeddings[identities == i].mean(0) for i in self.identities]
        self.means = np.stack([m / max(np.linalg.norm(m), 1e-6) for m in means])

    def nearest(self, embeddings):
        """Identity int32 [n] that is nearest to each of embeddings [n e]."""
        return self.identities[np.argmax(embeddings @ self.means.T, axis=1)]

    def similarity(self, embeddings, identities):
        """Cosine [n] of embeddings [n e], of length 1, to the means of identities [n]."""
        rows = np.searchsorted(self.identities, identities)
        return np.sum(embeddings * self.means[rows], axis=1)


class Tally:
    """Per-example values by name: their means are the numbers, their counts the examples."""

    def __init__(self):
        self.values = collections.defaultdict(list)

    def add(self, values):
        """values: {name: array [n]}."""
        for name, value in values.items():
            self.values[name].append(np.asarray(value))

    def means(self):
        """{name: mean over all examples}."""
        return {
            name: float(np.mean(np.concatenate(values), dtype=np.float64))
            for name, values in self.values.items()
        }

    def counts(self):
        """{name: number of examples}."""
        return {name: sum(map(len, values)) for name, values in self.values.items()}


def spread(n, most):
    """At most `most` of the numbers 0 ... n - 1, evenly spread, as a list."""
    count = min(n, most)
    return [i * n // count for i in range(count)]


def chunks(items, size):
    """Consecutive pieces of a list."""
    return [items[i : i + size] for i in range(0, len(items), size)]


def psnr(images, results):
    """Peak signal-to-noise ratio in dB of uint8 [n h w 3] pairs -> [n]."""
    error = np.square(images.astype(np.float32) - results).mean((1, 2, 3))
    return 10 * np.log10(255.0**2 / np.maximum(error, 1e-3))


def box_error(images, results, boxes):
    """Mean squared error [n] of uint8 [n h w 3] pairs inside boxes (y0, x0, y1, x1)."""
    return np.array(
        [
            np.square(a[y0:y1, x0:x1].astype(np.float32) - b[y0:y1, x0:x1]).mean()
            for a, b, (y0, x0, y1, x1) in zip(images, results, boxes, strict=True)
        ]
    )

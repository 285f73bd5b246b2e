"""Whose face is it, for a recogniser that training never sees? dlib's ResNet (extra `media`).

Our recogniser is behind the identity losses, so networks learn to please it; its word on their
results may flatter them. dlib's (data_pipelines/people/identities.py) has had no say.
dlib cuts the faces; its network is computed by JAX, which takes a tenth of the time.
"""

import functools

import numpy as np

from swaptalk_jax import backend
from swaptalk_jax.evaluation.gallery import Gallery
from swaptalk_jax.evaluation.tally import Tally, chunks, spread
from swaptalk_jax.models.public.dlib_resnet import DlibResNet

ENROLLED, TRIPLES = 4, 96  # frames an identity, swaps


class SecondRecogniser:
    """dlib's recogniser, its network computed by JAX.

    Raises ExtraError, one line with the remedy, without the extra `media`.
    """

    def __init__(self, batch_size=16):
        # Here: SciPy takes half a second, and not every command needs what reads public networks.
        from data_pipelines.people.identities import DlibRecogniser
        from swaptalk_jax.pretrained.formats import dlib_file

        self._dlib, self._batch_size = DlibRecogniser(), batch_size
        self._params = dlib_file.read(self._dlib.weights)
        self._apply = backend.jit(lambda params, x: DlibResNet().apply({"params": params}, x))

    def embed(self, images, points):
        """Images uint8 [n h w 3] and landmarks [n 68 2] in their pixels -> float32 [n 128], unit.

        n examples are worked off in batches of one size: one compilation.
        """
        given = functools.partial(self._apply, self._params)
        chips = self._dlib.chips(images, points)
        found = backend.in_batches(given, self._batch_size, chips)
        return found / np.linalg.norm(found, axis=1, keepdims=True)


def dlib_retrieval(pipe, validation):
    """second/id_retrieval: share of swaps whose nearest identity, for dlib, is the source's.

    *_truth: of the proxy swapper's results; *_unchanged: of the targets. id_similarity_source,
    _target: cosine of a swap to the mean embedding of either. Nothing without the extra `media`.
    """
    try:
        second = SecondRecogniser()
    except ImportError:
        return {}, {}, {}
    tally, gallery = Tally(), _gallery(second, validation)
    for rows in chunks(spread(len(validation.triples), TRIPLES), pipe.batch_size):
        batch, truth = validation.swapped(rows)
        target, frames = validation.images(batch["target_frame"])
        # The swap keeps the target's pose, so its landmarks say where the face is.
        points = [frame["landmarks"] for frame in frames]
        z = pipe.swap(*(pipe.lookup(batch[k]) for k in ("source", "target")))
        embeddings = second.embed(pipe.decode(z), points)
        who = batch["source_identity"]
        tally.add(
            {
                "second/id_retrieval": gallery.nearest(embeddings) == who,
                "second/id_similarity_source": gallery.similarity(embeddings, who),
                "second/id_similarity_target": gallery.similarity(
                    embeddings, batch["target_identity"]
                ),
            }
        )
        for name, images in (("truth", truth), ("unchanged", target)):
            right = gallery.nearest(second.embed(images, points)) == who
            tally.add({f"second/id_retrieval_{name}": right})
    return tally.means(), tally.counts(), {}


def _gallery(second, validation):
    """The mean face of each identity, from frames spread over its clips."""
    rows = {}
    for clip in validation.clips:
        frames = rows.setdefault(int(clip["identity"]), [])
        frames += range(clip["first"], clip["first"] + len(clip["codes"]))
    picked = [
        (who, frames[i]) for who, frames in rows.items() for i in spread(len(frames), ENROLLED)
    ]
    images, frames = validation.images([row for _, row in picked])
    embeddings = second.embed(images, [frame["landmarks"] for frame in frames])
    return Gallery(embeddings, np.array([who for who, _ in picked]))

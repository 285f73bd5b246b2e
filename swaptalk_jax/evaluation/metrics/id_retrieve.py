"""Whose face is a swapped one, for the bundle's own recogniser?"""

from swaptalk_jax.evaluation.metrics.colour import background_hue
from swaptalk_jax.evaluation.metrics.head import face_error
from swaptalk_jax.evaluation.metrics.psnr import psnr, squared_error
from swaptalk_jax.evaluation.renders import SHOWN, TRIPLES
from swaptalk_jax.evaluation.tally import Tally, chunks, eighths, spread


def swap(pipe, validation):
    """swap/id_retrieval: share of results whose nearest identity in the gallery is the source's.

    *_unquantized: the result not put on codes. *_truth: of the proxy swapper's result, which the
    module learns from. psnr: result against that; psnr_unchanged: the target's frame against it.
    error_ratio: squared error of the result against that, by the error of the target's frame.
    background_hue: of the result against that, as of colour.background_hue.
    id_similarity_*: cosine to the mean embedding of the source or the target.
    """
    tally, pictures, errors = Tally(), [], []
    picked = spread(len(validation.triples), TRIPLES)
    for rows in chunks(picked, pipe.batch_size):
        batch, truth = validation.swapped(rows)
        target, frames = validation.images(batch["target_frame"])
        z = pipe.swap(*(pipe.lookup(batch[k]) for k in ("source", "target")), quantize=False)
        result, raw = pipe.decode(pipe.quantize(z)), pipe.decode(z)
        embeddings = pipe.embed(result)
        # The swap keeps the target's pose, so its landmarks say where the face is.
        points = [frame["landmarks"] for frame in frames]
        who, whom = batch["source_identity"], batch["target_identity"]
        tally.add(
            {
                "swap/id_retrieval": validation.gallery.nearest(embeddings) == who,
                "swap/id_retrieval_unquantized": validation.gallery.nearest(pipe.embed(raw)) == who,
                "swap/id_retrieval_truth": validation.gallery.nearest(pipe.embed(truth)) == who,
                "swap/id_similarity_source": validation.gallery.similarity(embeddings, who),
                "swap/id_similarity_target": validation.gallery.similarity(embeddings, whom),
                "swap/background_hue": background_hue(truth, result, points),
                "swap/error": squared_error(truth, result),
                "swap/error_unchanged": squared_error(truth, target),
                "swap/psnr": psnr(truth, result),
                "swap/psnr_unquantized": psnr(truth, raw),
                "swap/psnr_unchanged": psnr(truth, target),
            }
        )
        source, _ = validation.images(batch["source_frame"])
        pictures += zip(source, target, truth, result, strict=True)
        errors += face_error(truth, result, points).tolist()
    numbers = tally.means()
    numbers["swap/error_ratio"] = numbers["swap/error"] / max(numbers["swap/error_unchanged"], 1e-6)
    return numbers, tally.counts(), {"swap": eighths(errors, pictures, SHOWN)}

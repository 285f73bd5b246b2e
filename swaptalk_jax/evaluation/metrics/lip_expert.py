"""How often the lip expert is right."""

from swaptalk_jax.evaluation.renders import PAIRS
from swaptalk_jax.evaluation.tally import Tally


def expert(pipe, validation):
    """expert/accuracy: right verdicts on pairs, half in sync, half of shifted or foreign sound."""
    from data_pipelines.loading import loader  # here: Grain takes a second to import

    tally = Tally()
    config = {
        "root": validation.codes_root,
        "window": pipe.audio["window"],
        "context": pipe.audio["context"],
        "eval_examples": PAIRS,
        "eval_windows": -(-PAIRS // len(validation.clips)),
    }
    for batch in loader.evaluation(config, "val", "pairs", pipe.batch_size, seed=0):
        b, t, h, w = batch["codes"].shape
        z = pipe.lookup(batch["codes"].reshape(b * t, h, w))
        cosine = pipe.in_sync(z.reshape(b, t, *z.shape[1:]), batch["audio"])
        right = (cosine > 0.5) == (batch["label"] > 0.5)
        tally.add({"expert/accuracy": right[batch["mask"] > 0]})
    return tally.means(), tally.counts(), {}

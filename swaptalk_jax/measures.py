"""What is measured of a bundle on the validation split, and the pictures that belong to it.

A measure is a function (pipe, validation) -> (numbers, examples, pictures), the first two with the
same names. Errors are taken on decoded 8-bit images, since those are what a viewer sees.
"""

from fractions import Fraction

import numpy as np

from data_pipelines import align, audio, loader
from swaptalk_jax import second_opinion
from swaptalk_jax.validation import Gallery, Tally, box_error, chunks, psnr, spread

# How much of the set is looked at, evenly spread: a share of 0.9 is then known to 0.02, and the
# tiny size takes a minute on two cores.
ENROLLED, FRAMES, TRIPLES, PAIRS, CLIPS, JOINT = 1200, 256, 240, 768, 40, 64
WINDOWS = 2  # runs of consecutive frames, of the expert's length, in each clip
TOGETHER = 8  # clips worked on at once, so that batches are full
SHOWN, STRIPS, STRIP = 8, 4, 10  # examples, clips, and frames of a clip in the report
FPS = Fraction(25)  # of all records
TOKENS = 2  # of sound in a frame


def latent_space(pipe, validation):
    """vqgan/psnr: dB between a frame and its reconstruction. codes_used_*: share of a codebook's
    rows in use over the whole set. recogniser/retrieval: of frames, in the gallery made here.
    """
    tally, pictures = Tally(), []
    codes = np.concatenate([clip["codes"] for clip in validation.clips])
    place = np.concatenate([c["first"] + np.arange(len(c["codes"])) for c in validation.clips])
    embeddings, identities = [], []
    for rows in chunks(spread(len(validation.frames), ENROLLED), pipe.batch_size):
        images, frames = validation.images(rows)
        embeddings.append(pipe.embed(images))
        identities += [int(frame["identity"]) for frame in frames]
    embeddings, identities = np.concatenate(embeddings), np.asarray(identities)
    validation.gallery = Gallery(embeddings, identities)
    tally.add({"recogniser/retrieval": validation.gallery.nearest(embeddings) == identities})

    picked = spread(len(codes), FRAMES)
    shown = {picked[i] for i in spread(len(picked), SHOWN)}
    for rows in chunks(picked, pipe.batch_size):
        images, _ = validation.images(place[rows])
        results = pipe.decode(pipe.lookup(codes[rows]))
        tally.add({"vqgan/psnr": psnr(images, results)})
        pictures += [pair for *pair, i in zip(images, results, rows, strict=True) if i in shown]
    middle, known = codes.shape[1] // 2, pipe.config["model"]["vqgan"]["codes"]
    used = {
        "vqgan/codes_used_upper": len(np.unique(codes[:, :middle])) / known,
        "vqgan/codes_used_lower": len(np.unique(codes[:, middle:])) / known,
    }
    return tally.means() | used, tally.counts(), {"reconstruction": pictures}


def expert(pipe, validation):
    """expert/accuracy: right verdicts on pairs, half in sync, half of shifted or foreign sound."""
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


def swap(pipe, validation):
    """swap/id_retrieval: share of results whose nearest identity in the gallery is the source's.

    *_unquantized: the result not put on codes. *_truth: of the proxy swapper's result, which the
    module learns from. psnr: result against that; psnr_unchanged: the target's frame against it.
    id_similarity_*: cosine to the mean embedding of the source or the target.
    """
    tally, pictures = Tally(), []
    picked = spread(len(validation.triples), TRIPLES)
    shown = {picked[i] for i in spread(len(picked), SHOWN)}
    for rows in chunks(picked, pipe.batch_size):
        batch, truth = validation.swapped(rows)
        target, _ = validation.images(batch["target_frame"])
        z = pipe.swap(*(pipe.lookup(batch[k]) for k in ("source", "target")), quantize=False)
        result, raw = pipe.decode(pipe.quantize(z)), pipe.decode(z)
        embeddings = pipe.embed(result)
        who, whom = batch["source_identity"], batch["target_identity"]
        tally.add(
            {
                "swap/id_retrieval": validation.gallery.nearest(embeddings) == who,
                "swap/id_retrieval_unquantized": validation.gallery.nearest(pipe.embed(raw)) == who,
                "swap/id_retrieval_truth": validation.gallery.nearest(pipe.embed(truth)) == who,
                "swap/id_similarity_source": validation.gallery.similarity(embeddings, who),
                "swap/id_similarity_target": validation.gallery.similarity(embeddings, whom),
                "swap/psnr": psnr(truth, result),
                "swap/psnr_unquantized": psnr(truth, raw),
                "swap/psnr_unchanged": psnr(truth, target),
            }
        )
        source, _ = validation.images(batch["source_frame"])
        known = zip(rows, source, target, truth, result, strict=True)
        pictures += [row for i, *row in known if i in shown]
    return tally.means(), tally.counts(), {"swap": pictures}


def sync(pipe, validation):
    """sync/mouth_error_ratio: error in the mouth's box against the true frame, over the error when
    the reference's lower half is left as it is. Reference: the clip's first frame.

    *_floor: of the VQGAN's reconstruction. in_sync*: the expert's cosine of the result, the truth,
    the reference's lips as they are. cross/in_sync: lips made for another clip's sound (reference
    = target), with that sound; cross/in_sync_unchanged: the unchanged lips with it.
    """
    tally, pictures = Tally(), []
    length, clips = pipe.audio["window"], validation.clips
    picked = [i for i in spread(len(clips), CLIPS) if len(clips[i]["codes"]) > length]
    for group in chunks(picked, TOGETHER):
        windows = [window for i in group for window in _windows(clips, i, length)]
        target, reference, truth, boxes = _seen(pipe, validation, windows, length)
        heard, said = _heard_and_said(pipe, windows, length, "own")
        foreign, foreign_said = _heard_and_said(pipe, windows, length, "other")
        results = {
            "": pipe.sync(target, reference, heard),
            "_unchanged": with_lips(target, reference),
            "_floor": target,
        }
        for name, z in results.items():
            error = box_error(truth, pipe.decode(z), boxes)
            tally.add({f"sync/mouth_error{name}": error})
        for name, z, sound in (
            ("sync/in_sync", results[""], said),
            ("sync/in_sync_truth", target, said),
            ("sync/in_sync_unchanged", results["_unchanged"], said),
            ("cross/in_sync", pipe.sync(target, target, foreign, warp=False), foreign_said),
            ("cross/in_sync_unchanged", target, foreign_said),
        ):
            z = z.reshape(len(windows), length, *z.shape[1:])
            tally.add({name: pipe.in_sync(z, sound)})
    for i in spread(len(picked), STRIPS):
        pictures.append(_strip(pipe, validation, clips[picked[i]]))
    numbers = tally.means()
    _add_ratios(numbers, "sync", ("", "_floor"))
    return numbers, tally.counts(), {"sync": pictures}


def joint(pipe, validation):
    """Swap, then sync by the self-driven rule, as infer does: joint/mouth_error_ratio as in `sync`,
    joint/id_retrieval as in `swap`.

    The truth is the proxy's result, which has the target's true mouth; the reference is the swapped
    first frame of the target's clip. The rules to choose from at inference: *_no_warp: the
    reference's lips are not moved to the target's pose; *_unquantized: the swapped face is not put
    on codes before its lips are made.
    """
    tally = Tally()
    for rows in chunks(spread(len(validation.triples), JOINT), pipe.batch_size):
        batch, truth = validation.swapped(rows)
        _, frames = validation.images(batch["target_frame"])
        boxes = _boxes(pipe, frames)
        places = [validation.place(i) for i in batch["target_frame"]]
        heard = np.concatenate([_heard(pipe, clip, 1, at) for clip, at in places])
        source, target = pipe.lookup(batch["source"]), pipe.lookup(batch["target"])
        first = pipe.lookup(np.stack([clip["codes"][0] for clip, _ in places]))
        raw = [pipe.swap(source, z, quantize=False) for z in (target, first)]
        codes = [pipe.quantize(z) for z in raw]
        results = {
            "": pipe.sync(*codes, heard),
            "_no_warp": pipe.sync(*codes, heard, warp=False),
            "_unquantized": pipe.sync(*raw, heard),
            "_unchanged": with_lips(*codes),
        }
        for name, z in results.items():
            images = pipe.decode(z)
            right = validation.gallery.nearest(pipe.embed(images)) == batch["source_identity"]
            tally.add(
                {
                    f"joint/mouth_error{name}": box_error(truth, images, boxes),
                    f"joint/id_retrieval{name}": right,
                }
            )
    numbers = tally.means()
    _add_ratios(numbers, "joint", ("", "_no_warp", "_unquantized"))
    return numbers, tally.counts(), {}


ALL = (latent_space, expert, swap, second_opinion.measure, sync, joint)


def with_lips(target, reference):
    """z [n h w d] of the target with the lower half of the reference [h w d] or [n h w d]."""
    middle = target.shape[1] // 2
    result = np.array(target)
    result[:, middle:] = reference[..., middle:, :, :]
    return result


def _add_ratios(numbers, measure, names):
    """Adds each error over that of the unchanged lips (which is 0 only where nothing moves)."""
    unchanged = max(numbers[f"{measure}/mouth_error_unchanged"], 1e-9)
    for name in names:
        ratio = numbers[f"{measure}/mouth_error{name}"] / unchanged
        numbers[f"{measure}/mouth_error_ratio{name}"] = ratio


def _windows(clips, i, length):
    """Runs of consecutive frames of clip i: dicts of the clip, another one, and the first frame."""
    starts = np.unique(np.linspace(1, len(clips[i]["codes"]) - length, WINDOWS).astype(int))
    other = clips[(i + 1) % len(clips)]
    return [{"own": clips[i], "other": other, "start": int(start)} for start in starts]


def _seen(pipe, validation, windows, length):
    """z of the windows' frames and of each one's reference, true images, mouth boxes."""
    codes = [w["own"]["codes"][w["start"] : w["start"] + length] for w in windows]
    rows = [w["own"]["first"] + w["start"] + k for w in windows for k in range(length)]
    truth, frames = validation.images(rows)
    reference = pipe.lookup(np.stack([w["own"]["codes"][0] for w in windows]))
    target = pipe.lookup(np.concatenate(codes))
    return target, np.repeat(reference, length, axis=0), truth, _boxes(pipe, frames)


def _heard_and_said(pipe, windows, length, whose):
    """Sound around each frame [n 2*context d], and of exactly each window [windows 2*length d]."""
    heard = [_heard(pipe, w[whose], length, w["start"]) for w in windows]
    said = []
    for w in windows:
        tokens = TOKENS * w["start"] + np.arange(TOKENS * length)
        features = w[whose]["features"]
        said.append(features[np.minimum(tokens, len(features) - 1)].astype(np.float32))
    return np.concatenate(heard), np.stack(said)


def _heard(pipe, clip, frames, first=0):
    """Sound around frames of a clip: float32 [frames 2*context d]."""
    return audio.context_windows(clip["features"], FPS, frames, pipe.audio["context"], first)


def _boxes(pipe, frames):
    return [align.mouth_box(frame["landmarks"], pipe.size) for frame in frames]


def _strip(pipe, validation, clip):
    """(reference, true frames, results) of frames spread over a clip, for the report."""
    rows = np.linspace(1, len(clip["codes"]) - 1, STRIP).astype(int)
    truth, _ = validation.images(clip["first"] + rows)
    reference = pipe.lookup(clip["codes"][:1])[0]
    heard = _heard(pipe, clip, len(clip["codes"]))[rows]
    results = pipe.decode(pipe.sync(pipe.lookup(clip["codes"][rows]), reference, heard))
    return validation.images([clip["first"]])[0][0], truth, results

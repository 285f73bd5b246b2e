"""The mouth after lip-sync, alone and after a swap: its errors, sharpness and flicker."""

import collections

import numpy as np

from swaptalk_jax.evaluation import renders
from swaptalk_jax.evaluation.metrics.flicker import flicker
from swaptalk_jax.evaluation.metrics.psnr import box_error
from swaptalk_jax.evaluation.metrics.sharpness import sharpness
from swaptalk_jax.evaluation.renders import CLIPS, JOINT, STRIP, STRIPS, TOGETHER, WINDOWS
from swaptalk_jax.evaluation.tally import Tally, chunks, eighths, spread


def sync(pipe, validation):
    """sync/mouth_error_ratio: error in the mouth's box against the true frame, over the error when
    the reference's lower half is left as it is. Reference: the clip's first frame.

    sharpness, flicker: of the mouth's box, by that of the true frames.
    *_floor: of the VQGAN's reconstruction. in_sync*: the expert's cosine of the result, the truth,
    the reference's lips as they are. cross/in_sync: lips made for another clip's sound (reference
    = target), with that sound; cross/in_sync_unchanged: the unchanged lips with it.
    """
    tally, levels, errors = Tally(), Tally(), collections.defaultdict(list)
    length, clips = pipe.audio["window"], validation.clips
    picked = [i for i in spread(len(clips), CLIPS) if len(clips[i]["codes"]) > length]
    for group in chunks(picked, TOGETHER):
        windows = [window for i in group for window in _windows(clips, i, length)]
        target, reference, truth, boxes = renders.seen(pipe, validation, windows, length)
        heard, said = renders.sounds(pipe, windows, length, "own")
        foreign, foreign_said = renders.sounds(pipe, windows, length, "other")
        results = {
            "": pipe.sync(target, reference, heard),
            "_unchanged": with_lips(target, reference),
            "_floor": target,
        }
        images = {name: pipe.decode(z) for name, z in results.items()}
        off = {name: box_error(truth, images[name], boxes) for name in images}
        tally.add({f"sync/mouth_error{name}": off[name] for name in off})
        for name, seen in (images | {"_truth": truth}).items():
            levels.add(
                {
                    f"sync/sharpness{name}": sharpness(seen, boxes),
                    f"sync/flicker{name}": flicker(seen, boxes, length),
                }
            )
        for k, window in enumerate(windows):
            errors[window["clip"]].append(off[""][k * length : (k + 1) * length].mean())
        for name, z, sound in (
            ("sync/in_sync", results[""], said),
            ("sync/in_sync_truth", target, said),
            ("sync/in_sync_unchanged", results["_unchanged"], said),
            ("cross/in_sync", pipe.sync(target, target, foreign, warp=False), foreign_said),
            ("cross/in_sync_unchanged", target, foreign_said),
        ):
            z = z.reshape(len(windows), length, *z.shape[1:])
            tally.add({name: pipe.in_sync(z, sound)})
    strips = eighths([np.mean(errors[i]) for i in picked], picked, STRIPS)
    numbers, counts = tally.means(), tally.counts()
    _add_ratios(numbers, "sync", ("", "_floor"))
    _add_by_truth(numbers, counts, levels, "sync/sharpness", ("", "_floor"))
    _add_by_truth(numbers, counts, levels, "sync/flicker", ("", "_floor"))
    pictures = {
        name: [_strip(pipe, validation, clips[i]) for i in found] for name, found in strips.items()
    }
    return numbers, counts, {"sync": pictures}


def joint(pipe, validation):
    """Swap, then sync by the self-driven rule, as infer does: joint/mouth_error_ratio as in `sync`,
    joint/sharpness as in `sync`, joint/id_retrieval as in `swap`.

    The truth is the proxy's result, which has the target's true mouth; the reference is the swapped
    first frame of the target's clip. The plain names follow `pipe.rules`. Beside them, each against
    warped lips on codes: *_no_warp: the reference's lips are not moved to the target's pose;
    *_unquantized: the swapped face is not put on codes before its lips are made.
    """
    tally, levels = Tally(), Tally()
    for rows in chunks(spread(len(validation.triples), JOINT), pipe.batch_size):
        batch, truth = validation.swapped(rows)
        _, frames = validation.images(batch["target_frame"])
        boxes = renders.mouth_boxes(pipe, frames)
        places = [validation.place(i) for i in batch["target_frame"]]
        heard = np.concatenate([renders.sound_around(pipe, clip, 1, at) for clip, at in places])
        source, target = pipe.lookup(batch["source"]), pipe.lookup(batch["target"])
        first = pipe.lookup(np.stack([clip["codes"][0] for clip, _ in places]))
        raw = [pipe.swap(source, z, quantize=False) for z in (target, first)]
        codes = [pipe.quantize(z) for z in raw]
        results = {
            "": pipe.sync(*(codes if pipe.rules.quantize else raw), heard),
            "_no_warp": pipe.sync(*codes, heard, warp=False),
            "_unquantized": pipe.sync(*raw, heard, warp=True),
            "_unchanged": with_lips(*codes),
        }
        levels.add({"joint/sharpness_truth": sharpness(truth, boxes)})
        for name, z in results.items():
            images = pipe.decode(z)
            levels.add({f"joint/sharpness{name}": sharpness(images, boxes)})
            right = validation.gallery.nearest(pipe.embed(images)) == batch["source_identity"]
            tally.add(
                {
                    f"joint/mouth_error{name}": box_error(truth, images, boxes),
                    f"joint/id_retrieval{name}": right,
                }
            )
    numbers, counts = tally.means(), tally.counts()
    _add_ratios(numbers, "joint", ("", "_no_warp", "_unquantized"))
    _add_by_truth(numbers, counts, levels, "joint/sharpness", ("", "_no_warp", "_unquantized"))
    return numbers, counts, {}


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


def _add_by_truth(numbers, counts, levels, measure, names):
    """Adds the means of levels by that of the truth, and how many examples they have."""
    means, known = levels.means(), levels.counts()
    for name in names:
        numbers[measure + name] = means[measure + name] / max(means[f"{measure}_truth"], 1e-6)
        counts[measure + name] = known[measure + name]


def _windows(clips, i, length):
    """Runs of consecutive frames of clip i: dicts of `clip` (i), `own` and `other` (that clip and
    another one) and `start`, the run's first frame.
    """
    starts = np.unique(np.linspace(1, len(clips[i]["codes"]) - length, WINDOWS).astype(int))
    other = clips[(i + 1) % len(clips)]
    return [{"clip": i, "own": clips[i], "other": other, "start": int(s)} for s in starts]


def _strip(pipe, validation, clip):
    """(reference, true frames, results) of frames spread over a clip, for the report."""
    rows = np.linspace(1, len(clip["codes"]) - 1, STRIP).astype(int)
    truth, _ = validation.images(clip["first"] + rows)
    reference = pipe.lookup(clip["codes"][:1])[0]
    heard = renders.sound_around(pipe, clip, len(clip["codes"]))[rows]
    results = pipe.decode(pipe.sync(pipe.lookup(clip["codes"][rows]), reference, heard))
    return validation.images([clip["first"]])[0][0], truth, results

"""What the metrics look at: which examples, what is seen and heard in them.

Errors are taken on decoded 8-bit images, since those are what a viewer sees.
"""

from fractions import Fraction

import numpy as np

from data_pipelines.faces import align
from data_pipelines.media.tokens import context_windows
from data_pipelines.rates import FRAME_RATE, TOKENS

# How much of the set is looked at, evenly spread: a share of 0.9 is then known to 0.02, and the
# tiny size takes a minute on two cores.
ENROLLED, FRAMES, TRIPLES, PAIRS, CLIPS, JOINT = 1200, 256, 240, 768, 40, 64
PERCEIVED = 64  # frames, and swaps, that a perceptual network sees
WINDOWS = 2  # runs of consecutive frames, of the expert's length, in each clip
TOGETHER = 8  # clips worked on at once, so that batches are full
# Of the worst, the median and the best eighth in the report: examples, clips, frames of a clip.
SHOWN, STRIPS, STRIP = 4, 2, 10


def seen(pipe, validation, windows, length):
    """z of the windows' frames and of each one's reference, true images, mouth boxes."""
    codes = [w["own"]["codes"][w["start"] : w["start"] + length] for w in windows]
    rows = [w["own"]["first"] + w["start"] + k for w in windows for k in range(length)]
    truth, frames = validation.images(rows)
    reference = pipe.lookup(np.stack([w["own"]["codes"][0] for w in windows]))
    target = pipe.lookup(np.concatenate(codes))
    return target, np.repeat(reference, length, axis=0), truth, mouth_boxes(pipe, frames)


def sounds(pipe, windows, length, whose):
    """Sound around each frame [n 2*context d], and of exactly each window [windows 2*length d]."""
    heard = [sound_around(pipe, w[whose], length, w["start"]) for w in windows]
    said = []
    for w in windows:
        tokens = TOKENS * w["start"] + np.arange(TOKENS * length)
        features = w[whose]["features"]
        said.append(features[np.minimum(tokens, len(features) - 1)].astype(np.float32))
    return np.concatenate(heard), np.stack(said)


def spoken(pipe, clip, other, frames):
    """Frames 1 ... frames - 1 of a clip as {name: uint8 [frames-1 s s 3]}.

    "": the lips of the clip's first frame made to say its sound; "_floor": made to say that of the
    clip `other`; "_ceiling": the VQGAN's reconstruction of the true frames.
    """
    target, reference = pipe.lookup(clip["codes"][1:frames]), pipe.lookup(clip["codes"][:1])[0]
    heard, foreign = (sound_around(pipe, c, frames)[1:] for c in (clip, other))
    return {
        "": pipe.decode(pipe.sync(target, reference, heard)),
        "_floor": pipe.decode(pipe.sync(target, reference, foreign)),
        "_ceiling": pipe.decode(target),
    }


def sound_around(pipe, clip, frames, first=0):
    """Sound around frames of a clip: float32 [frames 2*context d]."""
    return context_windows(
        clip["features"], Fraction(FRAME_RATE), frames, pipe.audio["context"], first
    )


def mouth_boxes(pipe, frames):
    """Mouth boxes (y0, x0, y1, x1) of frames' records, in pixels."""
    return [align.mouth_box(frame["landmarks"], pipe.size) for frame in frames]

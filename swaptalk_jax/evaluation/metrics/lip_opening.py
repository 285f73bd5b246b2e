"""Do lips open when they should? Landmarks found anew, by dlib (extra `media`), tell.

Neither a squared error nor the expert sees this: lips that hardly move have a small error, and
networks learn to please the expert.
"""

import numpy as np

from data_pipelines.faces.landmarker import Landmarker
from swaptalk_jax.evaluation import renders
from swaptalk_jax.evaluation.tally import Tally, spread

CLIPS, FRAMES = 24, 250  # clips, and the first frames of each (10 s)
# Standard deviation of a true opening, in widths of the face, below which lips hardly move: the
# predictor returns whole pixels of a face 240 px wide, so this is two and a half of them.
MOVES = 0.01
# dlib's detector puts its box here in aligned crops, in widths of the landmarks' box: so much
# above the middle of that box, and so wide (35 frames of the synthetic set).
ABOVE, WIDTH = 0.08, 1.03
UPPER, LOWER = [61, 62, 63], [67, 66, 65]  # inner lips, 300-W


class LipReader:
    """Finds how far lips are open.

    Raises ExtraError, one line with the remedy, without the extra `media`.
    """

    def __init__(self):
        self._landmarker = Landmarker()

    def openings(self, images, landmarks):
        """Height of the inner lips in widths of the face's box: float64 [n].

        images uint8 [n s s 3]: aligned crops of one clip, which the predictor sees enlarged;
        landmarks [n 68 2] in their pixels. Only the place of the clip's face is taken from them,
        one for all frames, so that they cannot tell how far the mouth is open.
        """
        box = np.mean(landmarks, axis=0)
        low, high = box.min(0), box.max(0)
        across = high[0] - low[0]
        centre, width = (low + high) / 2 - [0, ABOVE * across], WIDTH * across
        points = np.stack([self._landmarker.points(image, centre, width) for image in images])
        gaps = np.linalg.norm(points[:, UPPER] - points[:, LOWER], axis=2)
        return gaps.mean(1, dtype=np.float64) / width


def compare(opening, truth):
    """(Pearson correlation, share of the movement) of openings [n] of a clip and the true ones.

    The share is the ratio of standard deviations. Lips that do not move have a correlation of 0.
    """
    a, b = opening - opening.mean(), truth - truth.mean()
    scale = np.sqrt(np.sum(a * a) * np.sum(b * b))
    correlation = np.sum(a * b) / scale if scale > 1e-12 else 0.0
    return correlation, np.std(opening) / max(np.std(truth), 1e-12)


def lips(pipe, validation):
    """lips/correlation: Pearson's, of how far made lips are open with how far the true ones are,
    over a clip, averaged over clips. Reference: the clip's first frame.

    lips/movement: standard deviation of the opening by that of the truth. *_ceiling: of the VQGAN's
    reconstruction; *_floor: of lips made for another clip's sound. Clips whose true opening hardly
    moves are left out. Nothing without the extra `media`.
    """
    try:
        reader = LipReader()
    except ImportError:
        return {}, {}, {}
    tally, clips = Tally(), validation.clips
    for i in spread(len(clips), CLIPS):
        frames = min(len(clips[i]["codes"]), FRAMES)
        if frames < 3:
            continue
        rows = clips[i]["first"] + np.arange(1, frames)  # the first is the reference
        images, records = validation.images(rows)
        landmarks = [record["landmarks"] for record in records]
        truth = reader.openings(images, landmarks)
        if np.std(truth) < MOVES:
            continue
        made = renders.spoken(pipe, clips[i], clips[(i + 1) % len(clips)], frames)
        for name, pictures in made.items():
            correlation, movement = compare(reader.openings(pictures, landmarks), truth)
            tally.add({f"lips/correlation{name}": [correlation]})
            if name != "_floor":
                tally.add({f"lips/movement{name}": [movement]})
    return tally.means(), tally.counts(), {}

"""Where one shot of a video ends and the next begins, frame by frame and in constant memory."""

import collections

import cv2
import numpy as np

# Thresholds are in grey levels of a 32 x 32 colour thumbnail (mean absolute difference). They were
# set on 98 real clips without a cut and on 140 hard cuts, 80 of them between two clips of one
# person before one background: all but one are found, none is seen where there is none. See REACH.
SIDE = 32
REACH = 6  # frames looked back and ahead; a flash is shorter (40 flashes of 1-3 frames: no cut)
# A cut changes the picture more than anything near it does: STEP times the median change between
# neighbours (plus NOISE, below which is compression), which real clips stay under (3.9 at most).
STEP, NOISE, SMALLEST = 4.2, 0.3, 1.5
# In a dissolve the middle frame is the mean of both ends: it departs from the mean by at most 0.13
# of their difference (40 of 12 frames; longer ones than 16 pass), a moving head by 0.2 and more.
# A camera that pans may not, but it moves before and after too, by half of that; CALM is less.
BLEND, BLENDED, CALM = 0.15, 8.0, 0.35
# Nothing of a black picture is lighter: a fade passes through it.
BLACK = 16.0
# At once, before the future is known: so different that other faces may stand there.
SUDDEN = 12.0


class Shots:
    """Finds cuts, dissolves and fades in frames that are shown one after the other.

    PySceneDetect's content and adaptive detectors found 17 and 23 of the 80 cuts between clips of
    one person, and cut at every flash.
    """

    def __init__(self):
        self.cuts = []  # first frames of new shots, ascending; complete after `close`
        self._recent = collections.deque(maxlen=4 * REACH + 1)  # thumbnails
        self._steps = collections.deque(maxlen=4 * REACH)  # between neighbours in `_recent`
        self._count = 0
        self._black = False

    def show(self, frame):
        """frame uint8 [h w 3] -> whether it differs so much that faces should be sought anew."""
        # Every k-th pixel is enough for a mean, and saves reading a large frame twice.
        step = max(1, min(frame.shape[:2]) // (8 * SIDE))
        small = cv2.resize(frame[::step, ::step], (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        small = small.astype(np.float32).ravel()
        if self._recent:
            self._steps.append(float(np.abs(small - self._recent[-1]).mean()))
        black = float(small.max()) < BLACK
        if black != self._black:
            self.cuts.append(self._count)
        self._black = black
        self._recent.append(small)
        self._count += 1
        if len(self._recent) > REACH:
            self._judge(self._count - 1 - REACH, len(self._recent) - 1 - REACH)
        if len(self._recent) == self._recent.maxlen:
            self._judge_blend(self._count - 1 - 2 * REACH)
        return bool(self._steps) and self._steps[-1] > SUDDEN

    def close(self):
        """Judges the last frames -> the list of cuts."""
        ahead = min(REACH, len(self._recent))
        for k in range(ahead, 0, -1):
            self._judge(self._count - k, len(self._recent) - k)
        # A dissolve is seen from several of its frames.
        self.cuts = sorted({cut for cut in self.cuts if 0 < cut < self._count})
        self._recent.clear()
        return self.cuts

    def _judge(self, frame, at):
        """Whether `frame`, which is self._recent[at], is the first one of a shot."""
        if at < 1:
            return
        recent, steps = list(self._recent), list(self._steps)
        first, end = max(0, at - REACH + 1), min(len(recent), at + REACH - 1)
        if steps[at - 1] > SMALLEST:
            # Every picture before against every one after it: those around a flash are alike.
            change = min(np.abs(b - a).mean() for a in recent[first:at] for b in recent[at:end])
            around = steps[first : at - 1] + steps[at : end - 1]
            usual = float(np.median(around)) if around else 0.0
            if change > SMALLEST and change > STEP * (usual + NOISE):
                self.cuts.append(frame)

    def _judge_blend(self, frame):
        """Whether `frame`, in the middle of self._recent, is that of a dissolve."""
        before, a, middle, b, after = list(self._recent)[::REACH]
        change = np.abs(b - a).mean()
        calm = max(np.abs(a - before).mean(), np.abs(after - b).mean()) < CALM * change
        if change > BLENDED and calm and np.abs(middle - (a + b) / 2).mean() < BLEND * change:
            # Both ends, so that the blended frames are a shot too short to be a clip.
            self.cuts += [frame - REACH, frame + REACH]

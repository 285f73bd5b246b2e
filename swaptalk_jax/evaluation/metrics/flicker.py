"""How much a mouth jitters from frame to frame."""

import numpy as np


def flicker(images, boxes, length):
    """Mean |x[t-1] - 2 x[t] + x[t+1]| in the mouth's box, in grey levels, of each run -> [runs].

    images uint8 [runs*length h w 3]: runs of `length` consecutive frames, 3 or more; boxes (y0, x0,
    y1, x1) of the frames: a run is looked at where any of its boxes is. Steady motion adds little,
    jitter much.
    """
    found = []
    for first in range(0, len(images), length):
        run = images[first : first + length].astype(np.float32)
        around = np.array(boxes[first : first + length])
        (y0, x0), (y1, x1) = around[:, :2].min(0), around[:, 2:].max(0)
        found.append(np.abs(np.diff(run[:, y0:y1, x0:x1], 2, axis=0)).mean())
    return np.array(found)

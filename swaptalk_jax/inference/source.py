"""The source's face from a picture or a video."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from data_pipelines.faces import align, landmarker, landmarks
from data_pipelines.media import read_video
from data_pipelines.media.opening import MediaError
from data_pipelines.synthetic import sampling


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


def check_drawn(paths: Iterable[Path]) -> None:
    """Refuses files that do not say that they show people of data_pipelines.synthetic."""
    for path in paths:
        if (
            _is_picture(path)
            or not sampling.MARK.items() <= read_video.probe(path).metadata.items()
        ):
            raise MediaError(
                f"{path}: this bundle knows drawn faces only, those of data_pipelines.synthetic;"
                " train one on your own videos, see docs/data.md (--any_face tries it all the same)"
            )


def _is_picture(path):
    return path.is_file() and cv2.haveImageReader(str(path))


def _pictures(path):
    """The upright picture of an image file, or the frames of a video: uint8 [h w 3]."""
    if not _is_picture(path):
        yield from read_video.read_frames(path)
        return
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)  # turned as its EXIF orientation says
    if image is None:
        raise MediaError(f"{path}: is a damaged image; save it again")
    yield cv2.cvtColor(image, cv2.COLOR_BGR2RGB)

"""Proxy swappers by name."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from data_pipelines.errors import ProxyError
from data_pipelines.proxies import inswapper
from data_pipelines.proxies.classical import classical
from data_pipelines.proxies.exact import exact


@dataclass(frozen=True)
class Face:
    """An aligned face: image uint8 [s s 3] RGB, landmarks [68 2] in its pixels.

    meta of a synthetic face holds "synthetic" (its manifest entry and "frame", the frame's index)
    and "matrix" [2 3], frame pixels -> crop pixels.
    """

    image: np.ndarray
    landmarks: np.ndarray
    meta: dict = field(default_factory=dict)


# (source, target) -> uint8 [s s 3], the size of the target's image; None where these two faces
# cannot be swapped. A function of the two alone, which pickles.
Proxy = Callable[[Face, Face], np.ndarray | None]

NAMES = ("exact", "classical", "inswapper")


def make(name: str, model_path: str = "", recogniser_path: str = "") -> Proxy:
    """The proxy swapper of that name.

    model_path, recogniser_path: inswapper's two ONNX files, see inswapper.py; the others take none.

    Raises:
      ProxyError: unknown name, paths missing or superfluous, or files of another kind; ExtraError:
        the extra `inswapper` is not installed. Both say in one line what to do.
    """
    if name not in NAMES:
        raise ProxyError(f"there is no proxy {name!r}; the proxies are {', '.join(NAMES)}")
    if name == "inswapper":
        if not (model_path and recogniser_path):
            raise ProxyError(
                "the proxy inswapper needs the paths of inswapper_128.onnx and of w600k_r50.onnx:"
                f" your own copies, which insightface licenses {inswapper.LICENCE}"
            )
        return inswapper.load(model_path, recogniser_path)
    if model_path or recogniser_path:
        raise ProxyError(f"the proxy {name} takes no model; leave the paths out")
    return {"exact": exact, "classical": classical}[name]

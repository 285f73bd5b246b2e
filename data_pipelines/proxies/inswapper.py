"""Inswapper as proxy swapper: public networks from the user's own files, run by onnxruntime.

Two ONNX files of insightface: inswapper_128.onnx, and the recogniser with whose embeddings it was
trained, w600k_r50.onnx of the pack buffalo_l. **Both are licensed for non-commercial research
only**: neither is part of this project, and what is trained on their results inherits the question.
Results are soft (128 px a face): targets of training, never output for viewers.

Needs the extra `inswapper` (onnxruntime to run, onnx to read one matrix).
"""

import functools
import os
import pathlib

import numpy as np

from data_pipelines.errors import ExtraError, ProxyError
from data_pipelines.faces import align

LICENCE = "for non-commercial research only"
# ArcFace's template: eyes, nose, corners of the mouth in a crop of 112 x 112 pixels. Inswapper's
# crop of 128 x 128 shows the same face with 8 columns more on either side and 16 rows more below.
TEMPLATE = np.array(
    [
        [38.2946, 51.6963],
        [73.5318, 51.5014],
        [56.0252, 71.7366],
        [41.5493, 92.3655],
        [70.7299, 92.2041],
    ]
)
FACE, SWAPPED, WIDTH = 112, 128, 512
# Share of the swapped crop's side over which it fades into the target, as insightface's own erosion
# and blur of its box do.
FADE = 0.1


class Inswapper:
    """(source Face, target Face) -> uint8 [s s 3]: the target's crop with the source's face.

    As insightface does it: the target in ArcFace's alignment, RGB in 0..1, goes in beside the
    latent normalise(embedding @ emap); the answer is pasted back under a soft box. emap float32
    [512 512] is the last initializer of the file. Pickles as its paths; runs on one thread, so that
    results do not depend on the machine's cores.
    """

    def __init__(self, model_path: str | os.PathLike, recogniser_path: str | os.PathLike):
        """Raises ExtraError without the extra, ProxyError for a file of another kind: one line."""
        self._paths = str(model_path), str(recogniser_path)
        self._swap = _session(
            self._paths[0],
            "inswapper_128.onnx",
            inputs=[(3, SWAPPED, SWAPPED), (WIDTH,)],
            output=(3, SWAPPED, SWAPPED),
        )
        self._recognise = _session(
            self._paths[1], "w600k_r50.onnx", inputs=[(3, FACE, FACE)], output=(WIDTH,)
        )
        self._emap = _last_initializer(self._paths[0])

    def __reduce__(self):
        return load, self._paths

    def __call__(self, source, target):
        """None where the landmarks of either are not finite or lie all in one point."""
        from_source, from_target = (_onto(f.landmarks, TEMPLATE) for f in (source, target))
        if from_source is None or from_target is None:
            return None
        from_target[:, 2] += (8, 0)
        face = align.crop(target.image, from_target, SWAPPED)
        latent = self._embedding(align.crop(source.image, from_source, FACE)) @ self._emap
        latent /= np.linalg.norm(latent, axis=1, keepdims=True)
        picture = np.float32(face.transpose(2, 0, 1)[None]) / 255
        swapped = _run(self._swap, picture, latent)[0].transpose(1, 2, 0)
        swapped = np.rint(swapped.clip(0, 1) * 255).astype(np.uint8)
        return align.paste(target.image, swapped, from_target, _box())

    def _embedding(self, face):
        """uint8 [112 112 3] RGB -> float32 [1 512] of length 1."""
        picture = (np.float32(face.transpose(2, 0, 1)[None]) - 127.5) / 127.5
        embedding = _run(self._recognise, picture)
        return embedding / np.linalg.norm(embedding, axis=1, keepdims=True)


@functools.cache  # half a gigabyte: once a process, however many jobs name it
def load(model_path, recogniser_path) -> Inswapper:
    """The swapper of two files; the same object for the same paths."""
    return Inswapper(model_path, recogniser_path)


def _onto(landmarks, template):
    """Least-squares similarity [2 3] from 68 landmarks' five points to the template, or None."""
    points = np.asarray(landmarks, np.float64)
    eyes = points[36:42].mean(0), points[42:48].mean(0)
    five = np.stack([*eyes, points[30], points[48], points[54]])
    # As complex numbers a similarity is one factor and one offset (Umeyama, 1991, in the plane).
    ours, theirs = five @ [1, 1j], template @ [1, 1j]
    a = ours - ours.mean()
    extent = np.square(np.abs(a)).sum()
    if not np.isfinite(points).all() or extent < 1e-6:
        return None
    factor = np.vdot(a, theirs) / extent
    offset = theirs.mean() - factor * ours.mean()
    return np.array(
        [[factor.real, -factor.imag, offset.real], [factor.imag, factor.real, offset.imag]]
    )


@functools.cache
def _box():
    """Weight of the swapped crop: float32 [128 128], 0 at its edges, 1 from FADE on inwards."""
    at = (np.arange(SWAPPED) + 0.5) / SWAPPED
    inward = np.minimum(at, 1 - at)
    ramp = np.clip(np.minimum(inward[:, None], inward[None]) / FADE, 0, 1)
    return (ramp * ramp * (3 - 2 * ramp)).astype(np.float32)


def _session(path, wanted, inputs, output):
    """The network of an ONNX file, after a look at its shapes (without the batch)."""
    try:
        import onnxruntime
    except ImportError:
        raise ExtraError(
            "--proxy=inswapper runs on onnxruntime; pip install -e '.[inswapper]'"
        ) from None
    remedy = f"give your own copy of insightface's {wanted} ({LICENCE})"
    if not pathlib.Path(path).is_file():
        raise ProxyError(f"{path}: no such file; {remedy}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3  # emap is used by nobody inside of the graph, it warns
    try:
        session = onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own classes have no common base but this
        line = " ".join(str(error).split())[:160]
        raise ProxyError(
            f"{path}: not a network that onnxruntime reads ({line}); {remedy}"
        ) from None
    found = [tuple(i.shape[1:]) for i in session.get_inputs()]
    given = [tuple(o.shape[1:]) for o in session.get_outputs()]
    if found != inputs or given != [output]:
        raise ProxyError(
            f"{path}: takes {_shapes(found)} and gives {_shapes(given)}, but {wanted} takes"
            f" {_shapes(inputs)} and gives {_shapes([output])}; {remedy}"
        )
    return session


def _shapes(shapes):
    return " and ".join("x".join(map(str, shape)) or "one number" for shape in shapes) or "nothing"


def _run(session, *arrays):
    names = [i.name for i in session.get_inputs()]
    feed = {name: np.float32(array) for name, array in zip(names, arrays, strict=True)}
    return session.run(None, feed)[0]


def _last_initializer(path):
    """emap: onnxruntime does not give out initializers, so the file is read once more."""
    try:
        import onnx
    except ImportError:
        raise ExtraError(
            "--proxy=inswapper reads emap by onnx; pip install -e '.[inswapper]'"
        ) from None
    graph = onnx.load(path, load_external_data=False).graph
    shape = tuple(graph.initializer[-1].dims) if graph.initializer else ()
    if shape != (WIDTH, WIDTH):
        raise ProxyError(
            f"{path}: its last initializer is {_shapes([shape])}, not the 512x512 matrix that turns"
            f" embeddings into latents; give insightface's inswapper_128.onnx ({LICENCE})"
        )
    return onnx.numpy_helper.to_array(graph.initializer[-1]).astype(np.float32)

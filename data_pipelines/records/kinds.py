"""Every kind of record this project stores: names, shapes, dtypes, units, and their reader.

A kind lives in `<root>/<kind>/1.0.0/` as ArrayRecord shards plus the metadata of TFDS, so
`tfds.builder_from_directory("<root>/<kind>/1.0.0").as_data_source("train")` reads it without this
module. Splits are "train" and "val". TensorFlow is never imported (the Image and Audio features
of TFDS would), so images are encoded bytes; tensors are raw bytes (`encoding="bytes"`), without
which a record of 1.3 MB takes 56 ms to read instead of 0.5 ms. Shards are not compressed: images
are already, codes hardly shrink (13 %), and reading is 4 times faster.

| kind | one record is |
|---|---|
| frames | one aligned face crop of a clip, or behind these of a silent video or a still |
| clips | one clip: a run of consecutive `frames` at 25 fps, and its sound at 16 kHz |
| triples | source frame, target frame, and the proxy swapper's result of the two |
| codes | one clip as codes of one VQGAN, with its audio features at 50 Hz |
| swaps | one triple as codes of one VQGAN, with the identity embeddings of its loss |
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from data_pipelines.errors import SwapTalkError

if TYPE_CHECKING:  # it takes a second to import, so only those who declare records do
    import tensorflow_datasets as tfds

VERSION = "1.0.0"

# What the metadata of a kind must say. `identities`: names, position = the integer in the
# records. `fingerprint`: of the VQGAN that made the codes. `grid`: [h, w] of a frame's codes
# (w counts the codes of a row, of which a cell may have several).
REQUIRED = {
    "frames": ("size", "identities"),
    "clips": ("size", "identities"),
    "triples": ("size", "identities"),
    "codes": ("identities", "fingerprint", "grid", "audio", "audio_width", "embedding"),
    "swaps": ("identities", "fingerprint", "grid", "embedding"),
}


class RecordError(SwapTalkError, ValueError):
    """One clear line: which set or record, what is wrong with it, what to do."""


def features(kind: str, metadata: dict[str, Any]) -> tfds.features.FeaturesDict:
    """The declaration of a kind of record.

    Args:
      kind: frames | clips | triples | codes | swaps.
      metadata: of the set; `grid`, `audio_width` and `embedding` give the sizes h w, d and e.

    Raises:
      RecordError: unknown kind, or the metadata lacks an entry that `REQUIRED` names.
    """
    import tensorflow_datasets as tfds

    check(kind, metadata)
    h, w = metadata.get("grid", (None, None))
    d, e = metadata.get("audio_width"), metadata.get("embedding")
    kinds = {
        "frames": {
            "image": _bytes(),  # encoded RGB crop, see encode_image
            "landmarks": _tensor(np.float32, 68, 2),  # (x, y) in pixels of the crop
            "matrix": _tensor(np.float32, 2, 3),  # similarity, video pixels -> crop pixels
            "identity": _tensor(np.int32),
            "clip": tfds.features.Text(),  # the clip's name
            "frame": _tensor(np.int32),  # number of the frame in the video, at 25 fps
        },
        "clips": {
            "name": tfds.features.Text(),  # path of the video below its root, no suffix
            "identity": _tensor(np.int32),
            "identity_name": tfds.features.Text(),
            "first": _tensor(np.int64),  # index of its first record in `frames`, same split
            "frames": _tensor(np.int32),  # number of frames, at 25 fps
            "audio": _tensor(np.int16, None),  # 16 kHz mono, frames * 640 samples
            "meta": tfds.features.Text(),  # JSON: {"file", "synthetic"?: how to draw it again}
        },
        "triples": {
            "source": _tensor(np.int64),  # indices into `frames` of the same split
            "target": _tensor(np.int64),
            "result": _bytes(),  # encoded RGB crop: source's identity, the rest of target
            "source_identity": _tensor(np.int32),
            "target_identity": _tensor(np.int32),
        },
        "codes": {
            "name": tfds.features.Text(),
            "identity": _tensor(np.int32),
            "first": _tensor(np.int64),  # index of its first record in `frames`, same split
            "codes": _tensor(np.uint16, None, h, w),  # rows [:h/2] upper codebook, rest lower
            "features": _tensor(np.float16, None, d),  # audio at 50 Hz: 2 rows a frame
            "embedding": _tensor(np.float32, e),  # mean recogniser embedding, length 1
        },
        "swaps": {
            "source": _tensor(np.uint16, h, w),
            "target": _tensor(np.uint16, h, w),
            "result": _tensor(np.uint16, h, w),  # codes of the proxy swapper's result
            "id_source": _tensor(np.float32, e),  # recogniser embeddings, length 1
            "id_result": _tensor(np.float32, e),
            "source_identity": _tensor(np.int32),
            "target_identity": _tensor(np.int32),
        },
    }
    return tfds.features.FeaturesDict(kinds[kind])


def check(kind: str, metadata: dict[str, Any]) -> None:
    """Raises RecordError: unknown kind, or the metadata lacks an entry that `REQUIRED` names."""
    if kind not in REQUIRED:
        raise RecordError(f"there is no record kind {kind!r}; the kinds are {', '.join(REQUIRED)}")
    missing = [name for name in REQUIRED[kind] if name not in metadata]
    if missing:
        raise RecordError(f"the metadata of {kind} lacks {', '.join(missing)}")


def _tensor(dtype, *shape):
    import tensorflow_datasets as tfds

    return tfds.features.Tensor(shape=shape, dtype=dtype, encoding="bytes")


def _bytes():
    import tensorflow_datasets as tfds

    return tfds.features.Tensor(shape=(), dtype=np.object_)


def blank(kind: str, metadata: dict[str, Any], frames: int) -> dict[str, Any]:
    """A record of zeros, as `features` declares it; clips are so many frames long.

    Raises: as `features`.
    """
    record: dict[str, Any] = {}
    for name, feature in features(kind, metadata).items():
        if is_text(feature):
            record[name] = ""
        elif feature.np_dtype == np.object_:  # the only bytes are images
            size = metadata["size"]
            record[name] = encode_image(np.zeros((size, size, 3), np.uint8))
        else:
            length = 2 * frames if name == "features" else frames  # audio tokens: 50 Hz
            shape = [length if n is None else n for n in feature.shape]
            record[name] = np.zeros(shape, feature.np_dtype)
    return record


def is_text(feature: tfds.features.FeatureConnector) -> bool:
    """Whether a feature of `features` is text."""
    import tensorflow_datasets as tfds

    return isinstance(feature, tfds.features.Text)


def shard_name(kind: str, split: str, i: int, n: int) -> str:
    """File name of shard i of n of a split."""
    return f"swaptalk_{kind}-{split}.array_record-{i:05d}-of-{n:05d}"


def encode_image(image: np.ndarray) -> bytes:
    """RGB uint8 [h w 3] -> PNG (lossless) up to 128 px, above it JPEG of quality 95.

    A crop of 512 px takes 425 KB as PNG and 82 KB as JPEG, which is off by 1 grey level on average.
    """
    small = max(image.shape[:2]) <= 128
    flags = [] if small else [cv2.IMWRITE_JPEG_QUALITY, 95]
    done, data = cv2.imencode(
        ".png" if small else ".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), flags
    )
    if not done:
        raise RecordError(f"an image of shape {image.shape} cannot be encoded")
    return data.tobytes()


def decode_image(data: bytes) -> np.ndarray:
    """PNG or JPEG bytes -> RGB uint8 [h w 3]. Raises RecordError when it is neither."""
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    if image is None:
        raise RecordError(f"{len(data)} bytes are neither a PNG nor a JPEG image")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)

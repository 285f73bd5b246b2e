"""The files that clips wait in until all are known: crops, landmarks and sound of one clip each."""

import hashlib
import pathlib

import numpy as np

from data_pipelines import files, mouth_and_sound
from data_pipelines.building import pieces
from data_pipelines.faces import align, quality, tracks
from data_pipelines.mouth_and_sound import MARGIN
from data_pipelines.people import identities
from data_pipelines.rates import FRAME_RATE, SAMPLES
from data_pipelines.records import kinds

LOOKED_AT = 5  # frames between two that are judged by their pixels
EMBEDDED = 5  # frames of a clip whose embeddings are averaged


def load(path: pathlib.Path) -> dict:
    """A clip: name, first (frame of the video at 25 fps), images (list of encoded bytes),
    landmarks float32 [t 68 2] in crop pixels, matrices float32 [t 2 3], audio int16
    [640 (t + 2 MARGIN)], which begins MARGIN frames before the picture (see `cut_audio`); none
    where the clip is silent."""
    with np.load(path, allow_pickle=False) as data:
        clip = dict(data)
    packed = clip.pop("packed").tobytes()
    ends = clip.pop("ends").tolist()
    clip["images"] = [packed[a:b] for a, b in zip([0, *ends], ends, strict=False)]
    clip["name"], clip["first"] = str(clip["name"]), int(clip["first"])
    return clip


def cut_audio(clip: dict, offset: int = 0) -> np.ndarray:
    """The sound of a clip, of which `name` and `audio` of `load` will do: int16 [640 t].

    offset: by how many frames the sound comes later than its picture in the file (negative:
    earlier); the sound is taken from there, so that both agree. Raises ValueError beyond MARGIN.
    """
    if abs(offset) > MARGIN:
        raise ValueError(f"{clip['name']}: an offset of {offset} frames exceeds {MARGIN}")
    first = (MARGIN + offset) * SAMPLES
    return clip["audio"][first : first + len(clip["audio"]) - 2 * MARGIN * SAMPLES]


def mapped(points, matrices):
    """points [t n 2] by matrices [t 2 3] -> float32 [t n 2]."""
    moved = np.einsum("tij,tnj->tni", matrices[:, :, :2], points) + matrices[:, None, :, 2]
    return moved.astype(np.float32)


class ClipFile:
    """A clip that is being written: its pictures go to a file, of which little is remembered."""

    def __init__(self, job, piece, measures, scratch):
        self.job, self.piece, self.measures = job, piece, measures
        self._spool = (scratch / f"{piece.number}.packed").open("w+b")
        self._points = mapped(piece.points, piece.matrices)
        self._middles = mouth_and_sound.middles(self._points)
        self._ends, self._seen, self._portraits, self._mouths = [], [], [], []
        count = piece.end - piece.first
        self._short = count <= LOOKED_AT // 2  # all of it is judged
        self._embedded = set(((2 * np.arange(EMBEDDED) + 1) * count // (2 * EMBEDDED)).tolist())

    def add(self, frame, i):
        """Takes frame i of the video."""
        k = i - self.piece.first
        face = align.crop(frame, self.piece.matrices[k], self.job.size)
        self._spool.write(kinds.encode_image(face))
        self._ends.append(self._spool.tell())
        self._mouths.append(mouth_and_sound.patch(face, self._middles[k]))
        if k % LOOKED_AT == LOOKED_AT // 2 or self._short:
            self._seen.append(quality.of_pixels(frame, self.piece.points[k]))
        if k in self._embedded:
            self._portraits.append(_portrait(frame, self.piece.points[k]))

    def finish(self, sound):
        """The clip's row; its file stands if it is kept. sound: Soundtrack; None: it has none."""
        with self._spool:
            measures = self.measures | quality.over_time(self._seen)
            exact = self.job.video.synthetic is not None
            why = quality.refusal(measures, self.job.gates, exact)
            if why:
                return pieces.refused(self.piece.name, *why, measures)
            self._spool.flush()
            return self._save(sound) | {
                "measures": quality.rounded(measures),
                "pose": np.round(quality.pose(self.piece.points), 1).tolist(),
                "embedding": None if exact else _embedding(self._portraits),
            }

    def _save(self, sound):
        piece, source = self.piece, self.job.video
        # Names of videos hold "/" and what else people think of.
        tag = hashlib.sha256(source.name.encode()).hexdigest()[:16]
        path = self.job.folder / f"{tag}-{piece.number:05d}.npz"
        first = round(source.start * FRAME_RATE) + piece.first
        heard = {}
        if sound:
            heard["audio"] = sound.cut(piece.first - MARGIN, piece.end + MARGIN)
            mouths = np.stack(self._mouths)
            heard["mouth"] = mouth_and_sound.features(self._points, mouths, self.job.size)
        files.replace_arrays(
            path,
            name=np.array(piece.name),
            first=first,
            packed=np.memmap(self._spool, np.uint8, "r"),
            ends=np.array(self._ends, np.int64),
            landmarks=self._points,
            matrices=piece.matrices.astype(np.float32),
            **heard,
        )
        frames = piece.end - piece.first
        row = {"name": piece.name, "file": path.name, "first": first, "frames": frames}
        return row if sound else row | {"sound": False}


def _portrait(frame, points):
    """The part of a frame around a face, and the landmarks in it: a frame may have 25 MB."""
    middle, reach = tracks.centre(points), tracks.extent(points)
    x0, y0 = np.maximum(np.floor(middle - reach), 0).astype(int)
    x1, y1 = np.maximum(np.ceil(middle + reach), 1).astype(int)
    return frame[y0:y1, x0:x1].copy(), (points - [x0, y0]).astype(np.float32)


def _embedding(portraits):
    """128 numbers that tell the person, or None without the extra `media`.

    Real videos never come here without it: their landmarks need it too.
    """
    try:
        vector = identities.embedding(*(list(part) for part in zip(*portraits, strict=True)))
    except ImportError:
        return None
    return [round(float(x), 4) for x in vector]

"""The work on one video: its faces tracked, cut into clips, aligned, judged, and left in files.

Everything here is a function of its arguments, so the shards do not depend on the number of
processes. A video is read twice: for the landmarks, then for the crops. Of the pictures nothing is
kept but what is on its way to a file, so the memory does not grow with the length of a clip.
"""

import dataclasses
import hashlib
import pathlib
import tempfile
from fractions import Fraction

import cv2
import numpy as np

from data_pipelines import av_offset, files
from data_pipelines.faces import align, landmarks, quality, tracks
from data_pipelines.media import audio, read_video
from data_pipelines.people import identities
from data_pipelines.rates import FRAME_RATE, SAMPLE_RATE, SAMPLES
from data_pipelines.records import kinds
from data_pipelines.sources import listing

SHORTEST = 15  # frames; three windows of the sync expert
JUMP, ZOOM = 0.5, 4 / 3  # of the crop's half side, between two frames: another shot
MARGIN = av_offset.MARGIN  # frames of sound kept before and after a clip, to correct its offset by
LOOKED_AT = 5  # frames between two that are judged by their pixels
EMBEDDED = 5  # frames of a clip whose embeddings are averaged

# What a file that is broken in a way that nobody foresaw raises; a bug raises something else.
_BROKEN = (ValueError, OSError, RuntimeError, ArithmeticError, LookupError, cv2.error)


class Refused(ValueError):
    """Why a video is not taken; the build goes on without it."""

    def __init__(self, reason, detail):
        super().__init__(detail)
        self.reason = reason


@dataclasses.dataclass(frozen=True)
class Job:
    """One video, and how to cut it."""

    video: listing.Video
    size: int  # side of the crops in pixels
    longest: int  # frames of a clip; 0: not cut
    folder: pathlib.Path  # of the clip files
    cache: pathlib.Path  # of detected landmarks
    gates: quality.Gates = quality.Gates()


@dataclasses.dataclass(frozen=True)
class _Piece:
    """What may become a clip: frames [first, end) of the read span, one face."""

    name: str
    number: int
    first: int
    end: int
    points: np.ndarray  # float32 [n 68 2] in frame pixels, without gaps
    matrices: np.ndarray  # float64 [n 2 3], frame -> crop
    company: float  # share of frames with another face of comparable size


def clips(job: Job) -> dict:
    """Cuts a video into clips, leaves the good ones in `job.folder` and tells of all of them.

    Returns a dict that JSON can hold, the same on every run: video, identity, split, refused (a
    list of {"clip", "reason", "detail"}; clip is the video's name where all of it is refused) and
    clips (a list of {"name", "file", "first", "frames", "measures", "pose", "embedding"}): first is
    counted at 25 fps from the start of the file, measures are those of quality.measures, pose is
    (yaw, pitch, roll) of each frame in degrees, embedding is identities.embedding or None.

    One bad video must not end a long build; a missing installation or a bug of ours must.
    """
    row = {"video": job.video.name, "identity": job.video.identity, "split": job.video.split}
    row |= {"refused": [], "clips": []}
    try:
        for outcome in _outcomes(job):
            row["clips" if "file" in outcome else "refused"].append(outcome)
        return row
    except Refused as error:
        reason, detail = error.reason, str(error)
    except read_video.MediaError as error:
        reason, detail = quality.UNREADABLE, str(error)
    except _BROKEN as error:
        reason, detail = quality.UNREADABLE, f"unexpected {type(error).__name__}: {error}"
    for clip in row["clips"]:
        (job.folder / clip["file"]).unlink(missing_ok=True)
    # The row must not depend on where the files lie.
    detail = " ".join(detail.replace(str(job.video.path), job.video.path.name).split())
    return row | {
        "refused": [{"clip": job.video.name, "reason": reason, "detail": detail}],
        "clips": [],
    }


def load(path: pathlib.Path) -> dict:
    """A clip: name, first (frame of the video at 25 fps), images (list of encoded bytes),
    landmarks float32 [t 68 2] in crop pixels, matrices float32 [t 2 3], audio int16
    [640 (t + 2 MARGIN)], which begins MARGIN frames before the picture (see `cut_audio`)."""
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


# Choosing ----------------------------------------------------------------------------------------


def _outcomes(job):
    """Rows of refused and of kept clips."""
    path = job.video.path
    if not path.is_file():
        raise Refused(quality.MISSING, f"{path.name}: there is no such file; download it")
    if not read_video.probe(path).has_audio:
        raise Refused(quality.NO_SOUND, f"{path.name}: has no sound; lip-sync needs it")
    sound = _Sound(job.video)
    if not sound.any():
        raise Refused(quality.SILENT, f"{path.name}: its sound is silence; lip-sync needs speech")
    start, end, region = job.video.start, job.video.end, job.video.region
    found = landmarks.tracks_of(path, job.cache, Fraction(FRAME_RATE), start, end, region)
    if not found.tracks:
        where = f" within x, y, width, height = {region}" if region else ""
        detail = f"{path.name}: no face was found in its {found.frames} frames{where}"
        raise Refused(quality.NO_FACE, detail)
    chosen = []
    for piece in _pieces(job, found, sound):
        if isinstance(piece, dict):
            yield piece
            continue
        measures = quality.of_landmarks(piece.points, piece.company)
        measures |= quality.of_sound(sound.cut(piece.first, piece.end))
        why = quality.refusal(measures, job.gates, exact=job.video.synthetic is not None)
        if why:
            yield _refused(piece.name, *why, measures)
        else:
            chosen.append((piece, measures))
    yield from _written(job, chosen, sound)


def _refused(name, reason, detail, measures=None):
    row = {"clip": name, "reason": reason, "detail": detail}
    return row | ({"measures": quality.rounded(measures)} if measures else {})


def _pieces(job, found, sound):
    """Everything that could be a clip, in order: _Pieces, and rows of what is no piece."""
    number, longest = 0, job.longest or found.frames
    for track in found.tracks:
        matrices = align.matrices(track.points, job.size)
        beside = tracks.company(found, track)
        for first, end in _runs(matrices, job.size):
            a, b = max(track.first + first, sound.first), min(track.first + end, sound.end)
            name = f"{job.video.name}#{number}"
            unheard = end - first - max(b - a, 0)
            if unheard >= SHORTEST:
                said = _span(sound.first, sound.end)
                shown = _span(track.first + first, track.first + end)
                detail = f"sound from {said}, but the face is shown from {shown}"
                yield _refused(name, quality.CUT_SOUND, detail)
                number += 1
            elif b <= a:
                yield _refused(
                    name, quality.TOO_SHORT, f"{unheard} frames, before or after the sound"
                )
                number += 1
            first, end = a - track.first, b - track.first
            for at in range(first, end, longest):
                upto = min(at + longest, end)
                name = f"{job.video.name}#{number}"
                if upto - at < SHORTEST:
                    detail = f"{upto - at} frames from {track.first + at} on; {SHORTEST} are needed"
                    yield _refused(name, quality.TOO_SHORT, detail)
                else:
                    yield _Piece(
                        name,
                        number,
                        track.first + at,
                        track.first + upto,
                        _bridged(track.points[at:upto]),
                        matrices[at:upto],
                        float(beside[at:upto].mean()),
                    )
                number += 1


def _span(first, end):
    """Frames first to end, in words of seconds."""
    return f"{first / FRAME_RATE:.1f} to {end / FRAME_RATE:.1f} s"


def _runs(matrices, size):
    """[first, end) of all runs of frames with a face in which it does not jump."""
    known = np.flatnonzero(np.isfinite(matrices).all(axis=(1, 2)))
    if not len(known):
        return []
    back = align.invert(matrices[known])
    centre = back @ [size / 2 - 0.5, size / 2 - 0.5, 1]
    half = np.linalg.norm(back[:, 0, :2], axis=1) * size / 2
    moved = np.linalg.norm(np.diff(centre, axis=0), axis=1) / half[:-1]
    zoomed = np.abs(np.diff(np.log(half)))
    breaks = np.diff(known) > 1
    breaks |= (moved > JUMP) | (zoomed > np.log(ZOOM))
    breaks = np.flatnonzero(breaks)
    firsts = known[np.concatenate([[0], breaks + 1])]
    ends = known[np.concatenate([breaks, [len(known) - 1]])] + 1
    return list(zip(firsts.tolist(), ends.tolist(), strict=True))


def mapped(points, matrices):
    """points [t n 2] by matrices [t 2 3] -> float32 [t n 2]."""
    moved = np.einsum("tij,tnj->tni", matrices[:, :, :2], points) + matrices[:, None, :, 2]
    return moved.astype(np.float32)


def _bridged(points):
    """points [t 68 2] with the frames without a face interpolated, as their matrices are."""
    known = np.flatnonzero(np.isfinite(points[:, 0, 0]))
    flat = points.reshape(len(points), -1)
    rows = [np.interp(np.arange(len(points)), known, column[known]) for column in flat.T]
    return np.stack(rows, axis=1).reshape(points.shape)


# Sound -------------------------------------------------------------------------------------------


class _Sound:
    """The sound of a video's span, with MARGIN more on both sides where the file has it."""

    def __init__(self, source):
        lead = min(source.start, Fraction(MARGIN, FRAME_RATE))
        end = None if source.end is None else source.end + Fraction(MARGIN, FRAME_RATE)
        samples, _ = audio.read_audio(
            source.path, rate=SAMPLE_RATE, start=source.start - lead, end=end
        )
        self._samples = _int16(samples)
        self._lead = round(lead * SAMPLE_RATE)
        last = None if source.end is None else round((source.end - source.start) * SAMPLE_RATE)
        inside = np.flatnonzero(self._samples[self._lead :][:last])
        # Frames [first, end) lie between the first and the last sample that is not zero.
        self.first = int(inside[0]) // SAMPLES if len(inside) else 0
        self.end = -(-(int(inside[-1]) + 1) // SAMPLES) if len(inside) else 0

    def any(self):
        """Whether anything is heard."""
        return self.end > self.first

    def cut(self, first, end):
        """Of frames [first, end) -> int16 [640 (end - first)]; silence beyond the file."""
        a, b = first * SAMPLES + self._lead, end * SAMPLES + self._lead
        part = self._samples[max(a, 0) : max(b, 0)]
        before = max(0, -a)
        return np.pad(part, (before, b - a - before - len(part)))


def _int16(samples):
    return np.round(np.clip(samples, -1, 1) * 32767).astype(np.int16)


# Writing -----------------------------------------------------------------------------------------


def _written(job, chosen, sound):
    """Reads the frames once more -> rows of the clips, in the order in which they end."""
    waiting = sorted(chosen, key=lambda pair: pair[0].first)
    if not waiting:
        return
    source, running = job.video, []
    with tempfile.TemporaryDirectory(prefix=".cutting-", dir=job.folder) as scratch:
        frames = read_video.read_frames(source.path, Fraction(FRAME_RATE), source.start, source.end)
        for i, frame in enumerate(frames):
            while waiting and waiting[0][0].first == i:
                running.append(_Clip(job, *waiting.pop(0), pathlib.Path(scratch)))
            for clip in running:
                clip.add(frame, i)
            for clip in [clip for clip in running if clip.piece.end == i + 1]:
                running.remove(clip)
                yield clip.finish(sound)
            if not waiting and not running:
                break
        frames.close()


class _Clip:
    """A clip that is being written: its pictures go to a file, of which little is remembered."""

    def __init__(self, job, piece, measures, scratch):
        self.job, self.piece, self.measures = job, piece, measures
        self._spool = (scratch / f"{piece.number}.packed").open("w+b")
        self._points = mapped(piece.points, piece.matrices)
        self._middles = av_offset.middles(self._points)
        self._ends, self._seen, self._portraits, self._mouths = [], [], [], []
        count = piece.end - piece.first
        self._embedded = set(((2 * np.arange(EMBEDDED) + 1) * count // (2 * EMBEDDED)).tolist())

    def add(self, frame, i):
        """Takes frame i of the video."""
        k = i - self.piece.first
        face = align.crop(frame, self.piece.matrices[k], self.job.size)
        self._spool.write(kinds.encode_image(face))
        self._ends.append(self._spool.tell())
        self._mouths.append(av_offset.patch(face, self._middles[k]))
        if k % LOOKED_AT == LOOKED_AT // 2:
            self._seen.append(quality.of_pixels(frame, self.piece.points[k]))
        if k in self._embedded:
            self._portraits.append(_portrait(frame, self.piece.points[k]))

    def finish(self, sound):
        """The clip's row; its file stands if it is kept."""
        with self._spool:
            measures = self.measures | quality.over_time(self._seen)
            exact = self.job.video.synthetic is not None
            why = quality.refusal(measures, self.job.gates, exact)
            if why:
                return _refused(self.piece.name, *why, measures)
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
        files.replace_arrays(
            path,
            name=np.array(piece.name),
            first=first,
            packed=np.memmap(self._spool, np.uint8, "r"),
            ends=np.array(self._ends, np.int64),
            landmarks=self._points,
            matrices=piece.matrices.astype(np.float32),
            audio=sound.cut(piece.first - MARGIN, piece.end + MARGIN),
            mouth=av_offset.features(self._points, np.stack(self._mouths), self.job.size),
        )
        frames = piece.end - piece.first
        return {"name": piece.name, "file": path.name, "first": first, "frames": frames}


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

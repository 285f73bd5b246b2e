"""What of the faces of a file may become a clip: runs of frames with one face and its sound."""

import dataclasses

import numpy as np

from data_pipelines.faces import align, quality, tracks
from data_pipelines.rates import FRAME_RATE

SHORTEST = 15  # frames; three windows of the sync expert
JUMP, ZOOM = 0.5, 4 / 3  # of the crop's half side, between two frames: another shot


@dataclasses.dataclass(frozen=True)
class Piece:
    """What may become a clip: frames [first, end) of the read span, one face."""

    name: str
    number: int
    first: int
    end: int
    points: np.ndarray  # float32 [n 68 2] in frame pixels, without gaps
    matrices: np.ndarray  # float64 [n 2 3], frame -> crop
    company: float  # share of frames with another face of comparable size


def refused(name, reason, detail, measures=None):
    """The row of a clip that is not taken."""
    row = {"clip": name, "reason": reason, "detail": detail}
    return row | ({"measures": quality.rounded(measures)} if measures else {})


def pieces(job, found, sound, shortest=SHORTEST):
    """Everything that could be a clip, in order: Pieces, and rows of what is no piece.

    job: cutting.Job; found: tracks.Found; sound: Soundtrack, None: it isn't needed; shortest:
    frames that a clip must have.
    """
    number, longest = 0, job.longest or found.frames
    heard = (sound.first, sound.end) if sound else (0, found.frames)
    for track in found.tracks:
        matrices = align.matrices(track.points, job.size)
        beside = tracks.company(found, track)
        for first, end in _runs(matrices, job.size):
            a, b = max(track.first + first, heard[0]), min(track.first + end, heard[1])
            name = f"{job.video.name}#{number}"
            unheard = end - first - max(b - a, 0)
            if unheard >= SHORTEST:
                said = _span(*heard)
                shown = _span(track.first + first, track.first + end)
                detail = f"sound from {said}, but the face is shown from {shown}"
                yield refused(name, quality.CUT_SOUND, detail)
                number += 1
            elif b <= a:
                yield refused(
                    name, quality.TOO_SHORT, f"{unheard} frames, before or after the sound"
                )
                number += 1
            first, end = a - track.first, b - track.first
            for at in range(first, end, longest):
                upto = min(at + longest, end)
                name = f"{job.video.name}#{number}"
                if upto - at < shortest:
                    detail = f"{upto - at} frames from {track.first + at} on; {shortest} are needed"
                    yield refused(name, quality.TOO_SHORT, detail)
                else:
                    yield Piece(
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


def _bridged(points):
    """points [t 68 2] with the frames without a face interpolated, as their matrices are."""
    known = np.flatnonzero(np.isfinite(points[:, 0, 0]))
    flat = points.reshape(len(points), -1)
    rows = [np.interp(np.arange(len(points)), known, column[known]) for column in flat.T]
    return np.stack(rows, axis=1).reshape(points.shape)

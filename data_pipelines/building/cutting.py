"""The work on one video or still: its faces tracked, cut into clips, judged, and left in files.

A still is a video of one frame. What has no sound gives frames and no clips.
Everything here is a function of its arguments, so the shards do not depend on the number of
processes. A video is read twice: for the landmarks, then for the crops. Of the pictures nothing is
kept but what is on its way to a file, so the memory does not grow with the length of a clip.
"""

import dataclasses
import pathlib
import tempfile
from fractions import Fraction

import cv2

from data_pipelines.building.clip_files import ClipFile
from data_pipelines.building.pieces import SHORTEST, pieces, refused
from data_pipelines.building.soundtrack import Soundtrack
from data_pipelines.faces import landmarks, quality
from data_pipelines.media import read_picture, read_video
from data_pipelines.rates import FRAME_RATE
from data_pipelines.sources import listing

# What a file that is broken in a way that nobody foresaw raises; a bug raises something else.
_BROKEN = (ValueError, OSError, RuntimeError, ArithmeticError, LookupError, cv2.error)


class Refused(ValueError):
    """Why a video is not taken; the build goes on without it."""

    def __init__(self, reason, detail):
        super().__init__(detail)
        self.reason = reason


@dataclasses.dataclass(frozen=True)
class Job:
    """One video or still, and how to cut it."""

    video: listing.Video
    size: int  # side of the crops in pixels
    longest: int  # frames of a clip; 0: not cut
    folder: pathlib.Path  # of the clip files
    cache: pathlib.Path  # of detected landmarks
    gates: quality.Gates = quality.Gates()
    silent: str = "frames"  # of a video without sound: frames (and no clips) | refuse


def clips(job: Job) -> dict:
    """Cuts a video into clips, leaves the good ones in `job.folder` and tells of all of them.

    Returns a dict that JSON can hold, the same on every run: video, identity, split, source
    (videos | silent | stills), refused (a list of {"clip", "reason", "detail"}; clip is the video's
    name where all of it is refused) and clips (a list of {"name", "file", "first", "frames",
    "measures", "pose", "embedding"}, and "sound": False where there is none): first is counted at
    25 fps from the start of the file, measures are those of quality.measures, pose is (yaw, pitch,
    roll) of each frame in degrees, embedding is identities.embedding or None.

    One bad video must not end a long build; a missing installation or a bug of ours must.
    """
    row = {"video": job.video.name, "identity": job.video.identity, "split": job.video.split}
    row |= {"source": "stills" if job.video.still else "videos", "refused": [], "clips": []}
    try:
        for outcome in _outcomes(job, row):
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


def _outcomes(job, row):
    """Rows of refused and of kept clips; notes in the video's row that it is silent."""
    path, still = job.video.path, job.video.still
    if not path.is_file():
        raise Refused(quality.MISSING, f"{path.name}: there is no such file; download it")
    sound = None if still else _sound(job)
    if sound is None and not still:
        row["source"] = "silent"
    found = _faces(job.video, job.cache)
    chosen = []
    for piece in pieces(job, found, sound, shortest=1 if still else SHORTEST):
        if isinstance(piece, dict):
            yield piece
            continue
        measures = quality.of_landmarks(piece.points, piece.company)
        measures |= quality.of_sound(sound.cut(piece.first, piece.end)) if sound else {}
        why = quality.refusal(measures, job.gates, exact=job.video.synthetic is not None)
        if why:
            yield refused(piece.name, *why, measures)
        else:
            chosen.append((piece, measures))
    yield from _written(job, chosen, sound)


def _sound(job):
    """The video's soundtrack; None where it is silent and may be."""
    path, keep = job.video.path, job.silent == "frames"
    if not read_video.probe(path).has_audio:
        if keep:
            return None
        raise Refused(quality.NO_SOUND, f"{path.name}: has no sound; lip-sync needs it")
    sound = Soundtrack(job.video)
    if sound.any():
        return sound
    if keep:
        return None
    raise Refused(quality.SILENT, f"{path.name}: its sound is silence; lip-sync needs speech")


def _faces(video, cache):
    """The faces of a video or still (tracks.Found). Raises Refused where there is none."""
    path, region = video.path, video.region
    if video.still:
        found = landmarks.faces_of(path, cache, region)
    else:
        rate = Fraction(FRAME_RATE)
        found = landmarks.tracks_of(path, cache, rate, video.start, video.end, region)
    if found.tracks:
        return found
    where = f" within x, y, width, height = {region}" if region else ""
    what = "" if video.still else f" in its {found.frames} frames"
    raise Refused(quality.NO_FACE, f"{path.name}: no face was found{what}{where}")


def _pictures(video):
    """The frames of a video's span, or a still."""
    if video.still:
        yield read_picture.read_picture(video.path)
        return
    yield from read_video.read_frames(video.path, Fraction(FRAME_RATE), video.start, video.end)


def _written(job, chosen, sound):
    """Reads the frames once more -> rows of the clips, in the order in which they end."""
    waiting = sorted(chosen, key=lambda pair: pair[0].first)
    if not waiting:
        return
    running = []
    with tempfile.TemporaryDirectory(prefix=".cutting-", dir=job.folder) as scratch:
        frames = _pictures(job.video)
        for i, frame in enumerate(frames):
            while waiting and waiting[0][0].first == i:
                running.append(ClipFile(job, *waiting.pop(0), pathlib.Path(scratch)))
            for clip in running:
                clip.add(frame, i)
            for clip in [clip for clip in running if clip.piece.end == i + 1]:
                running.remove(clip)
                yield clip.finish(sound)
            if not waiting and not running:
                break
        frames.close()

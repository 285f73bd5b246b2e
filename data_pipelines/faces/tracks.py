"""All faces of a video, each followed from the frame where it appears to the one where it goes."""

import dataclasses

import numpy as np

from data_pipelines.faces import shots

# Frames (half a second) to wait for a lost face before it is given up.
PATIENCE = 12
# dlib takes a pattern for a face now and then, but not in so many frames of one shot.
FLICKER = 5
# Frames between two searches for further faces, for each of the Landmarker's looks: a search costs
# at most as much as following one face does.
SEARCH_EVERY = (12, 25, 75)
# A second face matters where it has at least this share of the first one's width.
COMPARABLE = 0.5
# Frames between two searches while there is no face: it is then found at most 0.1 s late.
IDLE_EVERY = 3


@dataclasses.dataclass(frozen=True)
class Track:
    """One face within one shot."""

    first: int  # frame of the video
    points: np.ndarray  # float32 [n 68 2] in frame pixels, NaN where it was not found

    @property
    def end(self):
        """The frame after the last one."""
        return self.first + len(self.points)


@dataclasses.dataclass(frozen=True)
class Found:
    """What was found in a video: its number of frames, its cuts and its tracks by first frame."""

    frames: int
    cuts: tuple[int, ...]  # first frames of all shots but the first
    tracks: tuple[Track, ...]


def centre(face):
    """[68 2] -> middle of its box [2]."""
    return (face.min(0) + face.max(0)) / 2


def extent(face):
    """[68 2] -> the longer side of its box, about the width of the head."""
    return float(np.ptp(face, axis=0).max())


def reachable(faces, previous):
    """Those of `faces` that `previous` may have become: near, of similar size; nearest first."""
    middle, size = centre(previous), extent(previous)
    near = []
    for face in faces:
        distance = float(np.linalg.norm(centre(face) - middle))
        if distance < 0.6 * size and 0.6 < extent(face) / size < 1.7:
            near.append((distance, face))
    return [face for _, face in sorted(near, key=lambda pair: pair[0])]


class _Live:
    """A face that is being followed."""

    def __init__(self, first, face):
        self.first, self.rows, self.last, self.missing = first, [face], face, 0

    def add(self, face):
        self.rows.append(face)
        self.missing = self.missing + 1 if face is None else 0
        self.last = self.last if face is None else face


def follow(frames, landmarker):
    """All faces through a video.

    frames: iterable of uint8 [h w 3]; landmarker: a landmarker.Landmarker. Returns Found. A face
    keeps its track while it moves by less than 0.6 of its width a frame, and over half a second
    without being seen; it ends at a cut, and whatever is there afterwards is another one. Faces
    smaller than half the largest one of the picture may be overlooked.
    """
    live, ended, count = [], [], 0
    scenes, search = shots.Shots(), _Search(landmarker)
    for i, frame in enumerate(frames):
        sudden = scenes.show(frame)
        for track in live:
            track.add(landmarker.near(frame, track.last))
        live = _without_twins(live, ended)
        for face in search(i, frame, live, sudden):
            lost = [t for t in live if t.missing and reachable([face], t.last)]
            if lost:
                lost[0].rows.pop()
                lost[0].missing -= 1
                lost[0].add(face)
            elif not any(reachable([face], t.last) or reachable([t.last], face) for t in live):
                live.append(_Live(i, face))
        ended += [t for t in live if t.missing > PATIENCE]
        live = [t for t in live if t.missing <= PATIENCE]
        count = i + 1
    cuts = tuple(scenes.close())
    found = [piece for track in ended + live for piece in _pieces(track, cuts)]
    found.sort(key=lambda track: (track.first, *-np.nanmax(track.points[0], axis=0)))
    return Found(count, cuts, tuple(found))


class _Search:
    """Decides when to search the whole picture, and how closely."""

    def __init__(self, landmarker):
        self.landmarker = landmarker
        self.last = {}  # look -> frame of the last search with it or with a closer one

    def __call__(self, i, frame, live, sudden):
        seen = [t for t in live if not t.missing]
        if not seen:
            closest = len(SEARCH_EVERY) - 1
            due = sudden or i - self.last.get(0, -IDLE_EVERY) >= IDLE_EVERY
            closer = sudden or self._due(i, closest)
            return self._look(i, frame, 0, closest if closer else closest - 1) if due else []
        smallest = COMPARABLE * max(extent(t.last) for t in seen)
        look = self.landmarker.look_for(frame, smallest)
        return self._look(i, frame, look, look) if sudden or self._due(i, look) else []

    def _due(self, i, look):
        return i - self.last.get(look, -SEARCH_EVERY[look]) >= SEARCH_EVERY[look]

    def _look(self, i, frame, first, last):
        """The faces of the first of these looks that finds any."""
        for look in range(first, last + 1):
            for coarser in range(look + 1):
                self.last[coarser] = i
            faces = self.landmarker.search(frame, look)
            if faces:
                return faces
        return []


def _without_twins(live, ended):
    """Of two tracks that have run into one face the longer one stays; the other ends before."""
    kept = []
    for track in sorted(live, key=lambda t: t.first):
        twin = not track.missing and any(
            not t.missing
            and np.linalg.norm(centre(t.last) - centre(track.last))
            < 0.3 * min(extent(t.last), extent(track.last))
            for t in kept
        )
        if twin:
            track.rows.pop()
            ended.append(track)
        else:
            kept.append(track)
    return kept


def _pieces(track, cuts):
    """A followed face -> its Tracks, one per shot, without unseen frames at their ends."""
    inside = [c for c in cuts if track.first < c < track.first + len(track.rows)]
    edges = [track.first, *inside, track.first + len(track.rows)]
    for first, end in zip(edges, edges[1:], strict=False):
        rows = track.rows[first - track.first : end - track.first]
        known = [k for k, row in enumerate(rows) if row is not None]
        if len(known) >= FLICKER:
            empty = np.full((68, 2), np.nan, np.float32)
            rows = [empty if row is None else row for row in rows[known[0] : known[-1] + 1]]
            yield Track(first + known[0], np.stack(rows).astype(np.float32))


def main_face(found):
    """One face through the whole video: float32 [frames 68 2], NaN where there is none.

    The largest face of the first frame that has any is followed; when it has been away for half a
    second, or at a cut, the largest one of the picture takes its place.
    """
    points = np.full((found.frames, 68, 2), np.nan, np.float32)
    i = 0
    while True:
        there = [t for t in found.tracks if t.end > i]
        if not there:
            return points
        i = max(i, min(t.first for t in there))
        there = [t for t in there if t.first <= i]
        track = max(there, key=lambda t: _size_from(t, i))
        points[i : track.end] = track.points[i - track.first :]
        cut = min((c for c in found.cuts if c >= track.end), default=found.frames)
        i = min(track.end + PATIENCE, cut)


def _size_from(track, frame):
    """Width of a track's face in the first frame from `frame` on in which it was seen."""
    rows = track.points[frame - track.first :]
    seen = rows[np.isfinite(rows[:, 0, 0])]
    return extent(seen[0])


def company(found, track):
    """bool [n] per frame of a track: whether another face of comparable size is in the picture."""
    own = _widths(track)
    beside = np.zeros(len(own), bool)
    for other in found.tracks:
        if other is track or other.end <= track.first or other.first >= track.end:
            continue
        first, end = max(track.first, other.first), min(track.end, other.end)
        theirs = _widths(other)[first - other.first : end - other.first]
        mine = own[first - track.first : end - track.first]
        beside[first - track.first : end - track.first] |= theirs >= COMPARABLE * mine
    return beside


def _widths(track):
    """float64 [n]: extent of the face, interpolated where it was not seen."""
    sizes = np.ptp(track.points, axis=1).max(-1).astype(np.float64)
    known = np.flatnonzero(np.isfinite(sizes))
    return np.interp(np.arange(len(sizes)), known, sizes[known])

"""Whose face is it, and on which side of the split does it stand?

A name ("WDA_DebbieStabenow", a folder, a manifest's identity) may hide several people (HDTF's
RD_Radio: 57 videos), and one person may have several names. So every clip gets two answers:

- its *label*, the recogniser's class: the person, which is a cluster of faces;
- its *group*, which the split moves as a whole: all that hangs together by names or by faces.
  Two people in one group cost little; one person on both sides of the split spoils every figure.

Faces are compared by dlib's recogniser (extra `media`), which training never uses. Without
embeddings names alone decide.
"""

import collections
import dataclasses
import functools
import hashlib
from collections.abc import Iterable, Mapping

import numpy as np

from data_pipelines.errors import SwapTalkError
from data_pipelines.faces import landmarker
from data_pipelines.people import clusters
from data_pipelines.sources import listing

# Distances between embeddings of length 1. Of 98 real clips of 14 people (means of 5 frames) those
# of one person are 0.12 apart (median; 99 %: 0.28, at most 0.33, where swapped faces kept some of
# their targets), those of two people 0.58 (1 %: 0.46, at least 0.41). Average linkage finds the 14
# people without a mistake from 0.28 to 0.42. We stay in the lower half: HDTF's 280 people make
# 39,000 pairs, of which a normal fit to the 91 pairs here puts 9 below 0.33 and 46 below 0.36; and
# dlib tells East Asian people apart less well: photos of them begin to merge at 0.335. Blur by 4 %
# of the face brings strangers to 0.23: quality gates come first.
SAME = 0.33
CLOSE = 0.38  # not merged, but somebody should look: about 100 pairs of HDTF by the same fit
WIDTH = 128  # of dlib's embedding


class IdentityError(SwapTalkError, ValueError):
    """One clear line: which two videos contradict each other, how, what to do."""


class DlibRecogniser:
    """dlib's ResNet (King, 2017: 128-d, 99.4 % on LFW). Loading takes a moment: keep it.

    Raises ExtraError, one line with the remedy, without the extra `media`.
    """

    def __init__(self):
        self.weights = landmarker.model_file("dlib_face_recognition_resnet_model_v1.dat")
        import dlib  # here and not above: splitting by names must work without the extra

        self._dlib = dlib

    @functools.cached_property
    def _model(self):
        return self._dlib.face_recognition_model_v1(str(self.weights))

    def embed(self, images, points):
        """Images uint8 [n h w 3] and landmarks [n 68 2] in their pixels -> float32 [n 128], unit.

        0.1 s a face on one core.
        """
        chips = self.chips(images, points)
        found = [np.array(self._model.compute_face_descriptor(chip)) for chip in chips]
        return clusters.unit(np.stack(found)).astype(np.float32)

    def chips(self, images, points):
        """Faces of images as the network sees them, uint8 [n 150 150 3]; arguments as of `embed`.

        dlib turns and cuts each face by its landmarks.
        """
        chips = []
        for image, face in zip(images, points, strict=True):
            h, w = image.shape[:2]
            shape = self._dlib.full_object_detection(
                self._dlib.rectangle(0, 0, w - 1, h - 1),
                [self._dlib.point(x, y) for x, y in np.rint(face).astype(int).tolist()],
            )
            image = np.ascontiguousarray(image)
            chips.append(self._dlib.get_face_chip(image, shape, size=150, padding=0.25))
        return np.stack(chips)


@functools.cache
def _recogniser():
    return DlibRecogniser()


def embedding(images: list[np.ndarray], points: list[np.ndarray]) -> np.ndarray:
    """The mean face of some frames of one clip, float32 [128] of length 1.

    images: at least one uint8 [h w 3]; points: of each, landmarks [68 2] in its pixels. Frames
    spread over the clip say more than neighbours: five bring the two clips of a person that are
    least alike from 0.38 (one frame) to 0.33. Raises ExtraError without the extra `media`.
    """
    return clusters.unit(_recogniser().embed(images, points).mean(axis=0))


@dataclasses.dataclass(frozen=True, eq=False)
class FaceClip:
    """What is known of a clip before its identity is settled."""

    name: str  # unique
    video: str
    identity: str  # a name from the source
    split: str | None = None  # "train" or "val" where the source says so
    embedding: np.ndarray | None = None  # [128], of any length
    sound: bool = True  # whether it is a clip; else frames alone


def clips_of(rows: Iterable[dict]) -> list[FaceClip]:
    """Clips of the rows that cutting.clips returns, one a video."""
    return [
        FaceClip(
            clip["name"],
            row["video"],
            row["identity"],
            row["split"],
            clip["embedding"],
            clip.get("sound", True),
        )
        for row in rows
        for clip in row["clips"]
    ]


@dataclasses.dataclass(frozen=True)
class Identities:
    """Whose each clip is, and what was merged on the way; the same for every order of the clips.

    Rows: "merged", a person of several names; "divided", a name of several people; "close", two
    people who may be one. Each has "identities" (names; in close ones labels), "videos" that show
    it (one of each, the most alike), and the "distance" of mean faces: the largest in a person,
    the smallest between people. Close ones have their "splits" too: a pair that stands on both
    sides may be a leak.
    """

    labels: dict[str, str]  # clip -> class of the recogniser
    groups: dict[str, str]  # clip -> the alphabetically first name of its group
    splits: dict[str, str]  # clip -> "train" or "val"
    merged: list[dict]
    divided: list[dict]
    close: list[dict]

    def names(self) -> list[str]:
        """Labels in the order of their numbers: train first, so train classes are 0 ... n - 1."""
        sides = {self.labels[clip]: side for clip, side in self.splits.items()}
        return sorted(sides, key=lambda label: (listing.SPLITS.index(sides[label]), label))

    def report(self) -> dict:
        """JSON-able: of each group its split, labels and number of clips; then the rows."""
        members = _parts(self.groups)
        groups = [
            {
                "group": group,
                "split": self.splits[clips[0]],
                "labels": sorted({self.labels[clip] for clip in clips}),
                "clips": len(clips),
            }
            for group, clips in members.items()
        ]
        rows = {"merged": self.merged, "divided": self.divided, "close": self.close}
        return {"groups": groups} | rows


def resolve(clips: Iterable[FaceClip], told: bool = False, same: float = SAME) -> Identities:
    """Labels, groups and splits of clips.

    told: names are somebody's word (a manifest's), so a name is never several labels: the label is
    the group. Otherwise it is the person, see clusters.labels. same: faces closer than this are one
    person; 0: names alone decide. A split that the source names holds for the whole group; the
    others are split by `split`.

    Raises:
      IdentityError: the source puts clips of one group into train and into val.
    """
    clips = sorted(clips, key=lambda clip: clip.name)
    names, videos = [clip.identity for clip in clips], [clip.video for clip in clips]
    faces = np.full((len(clips), WIDTH), np.nan)
    for i, clip in enumerate(clips):
        if clip.embedding is not None and same > 0:
            faces[i] = clusters.unit(np.asarray(clip.embedding, np.float64))
    known = clusters.clusters(names, videos, faces, same)
    groups = clusters.groups(names, known)
    labels, unsure = clusters.labels(names, [clip.name for clip in clips], known)
    given = {}
    for group, members in _parts(dict(enumerate(groups))).items():
        sides = {clips[i].split for i in members} - {None}
        if len(sides) > 1:
            raise IdentityError(_conflict(clips, members, known, faces))
        given[group] = sides.pop() if sides else None
    mixed = {group for group, name in zip(groups, names, strict=True) if name in unsure}
    heard = {group for group, clip in zip(groups, clips, strict=True) if clip.sound}
    # Each for itself: stills alone must not be all of val, or of train.
    of_group = split({g: side for g, side in given.items() if g in heard}, mixed)
    of_group |= split({g: side for g, side in given.items() if g not in heard}, mixed)
    sides = [of_group[group] for group in groups]

    def of_clips(values):
        return {clip.name: value for clip, value in zip(clips, values, strict=True)}

    return Identities(
        labels=of_clips(groups if told else labels),
        groups=of_clips(groups),
        splits=of_clips(sides),
        merged=clusters.merged(names, videos, faces, known),
        divided=clusters.divided(names, videos, faces, known),
        close=clusters.close(labels, sides, videos, faces, known, CLOSE),
    )


def split(given: Mapping[str, str | None], mixed: Iterable[str] = ()) -> dict[str, str]:
    """A side for every group: the given one, or 9:1 by a hash of its name.

    So it holds when groups are added. A side that would be empty gets one of the open groups.
    Groups of `mixed`, where names don't tell people apart, go to train: validation has to know
    who is who, and a folder with HDTF's RD_Radio videos would have more than half of val from them.
    """
    mixed, sides = set(mixed), {}
    for group, side in given.items():
        val = _hash(group) % 10 == 0 and group not in mixed
        sides[group] = side or ("val" if val else "train")
    order = sorted((g for g in given if given[g] is None), key=lambda g: (g in mixed, _hash(g)))
    if order and len(sides) > 1:
        if "val" not in sides.values():
            sides[order[0]] = "val"
        if "train" not in sides.values():
            sides[order[-1]] = "train"
    return sides


def _hash(name):
    return int(hashlib.sha256(name.encode()).hexdigest(), 16)


def _parts(group_of):
    """{member: group} -> {group: [member ...]}, groups in alphabetical order."""
    parts = collections.defaultdict(list)
    for member, group in group_of.items():
        parts[group].append(member)
    return dict(sorted(parts.items()))


def _conflict(clips, members, known, faces):
    """Why these clips hang together, although the source has them in train and in val."""

    def sides(part):
        return ([i for i in part if clips[i].split == side] for side in listing.SPLITS)

    def place(i):
        return f"{clips[i].video} ({clips[i].identity}, {clips[i].split})"

    by_name = _parts({i: clips[i].identity for i in members})
    for name, part in by_name.items():
        train, val = sides(part)
        if train and val:
            return (
                f"{clips[train[0]].video} is in train and {clips[val[0]].video} in val, but both"
                f" are of {name}: put all of its videos on one side"
            )
    for person in known:
        train, val = sides(person)
        if train and val:
            a, b, distance = clusters.nearest(train, val, faces)
            return (
                f"{place(a)} and {place(b)} show one face (distance {distance:.3f}): put both"
                " identities on one side, or, if they are two people, lower same_face"
            )
    train, val = sides(members)
    return (
        f"{place(train[0])} and {place(val[0])} hang together by faces and names of"
        f" {', '.join(by_name)}: put all of these on one side, or, if faces that are not the same"
        " were merged, lower same_face"
    )

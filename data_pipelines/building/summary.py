"""What a build says of itself: what was left out and why, and how much each source gave."""

import collections
import json

from data_pipelines import files
from data_pipelines.building import jobs
from data_pipelines.building.config import BuildError
from data_pipelines.sources import listing

REPORT = "report.json"
GIVEN = ("files", "clips", "frames", "refused")  # of each source
NAMES = {"silent": ("silent videos", "silent video"), "stills": ("stills", "still")}  # many, one


def tell_refused(out, rows):
    """Counts by reason, on the screen. Raises BuildError where nothing is left."""
    refused = collections.Counter(_refused(rows))
    if refused:
        counts = ", ".join(f"{n} {reason}" for reason, n in refused.most_common())
        print(f"left out: {counts}; {out / REPORT} tells of each", flush=True)
    if not any(row["clips"] for row in rows):
        files.replace_text(out / REPORT, json.dumps(rows, indent=1))
        raise BuildError(f"none of the {len(rows)} {_what(rows)} could be used; see {out / REPORT}")


def _what(rows):
    kinds = {row.get("source") == "stills" for row in rows}
    return "videos and stills" if len(kinds) > 1 else "stills" if True in kinds else "videos"


def _refused(rows):
    """Reasons of what was left out. What HDTF's lists lack is told, but leaves nothing out."""
    reasons = [refused["reason"] for row in rows for refused in row["refused"]]
    return [reason for reason in reasons if reason != "annotation"]


def summary(rows, swapped):
    """How much there is, as build.json keeps it.

    rows: of cutting.clips, with each clip's split; swapped: number of triples by split.
    """
    frames, sources = dict.fromkeys(listing.SPLITS, 0), {}
    for row in (row for row in rows if row["clips"] or _refused([row])):
        own = sources.setdefault(row.get("source", "videos"), dict.fromkeys(GIVEN, 0))
        own["files"] += 1
        own["refused"] += len(_refused([row]))
        for clip in row["clips"]:
            own["clips"] += jobs.has_sound(clip)
            own["frames"] += clip["frames"]
            frames[clip["split"]] += clip["frames"]
    return {
        "videos": sources.get("videos", {}).get("files", 0),
        "clips": sum(own["clips"] for own in sources.values()),
        "refused": len(_refused(rows)),
        "frames": frames,
        "triples": swapped,
        "sources": sources,
    }


def sentence(told):
    """A summary in words."""
    parts, without = [], told["sources"].keys() - {"videos"}
    if "videos" in told["sources"] or not without:
        refused = told["refused"] - sum(told["sources"][name]["refused"] for name in without)
        parts.append(f"{told['videos']} videos: {told['clips']} clips kept, {refused} left out")
    for name in sorted(without):
        own = told["sources"][name]
        what = NAMES[name][own["files"] == 1]
        parts.append(
            f"{own['files']} {what}: {own['frames']} frames and no clips, {own['refused']} left out"
        )
    for kind in ("frames", "triples"):
        parts += [f"{n} {kind} in {split}" for split, n in told[kind].items()]
    return ", ".join(parts)

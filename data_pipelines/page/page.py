"""index.html of a build: one page, no other file, by which a person judges the data in a minute.

What decides comes first: how much there is, what was refused and why, how it is distributed; then
pictures of triples and people. The page is a function of the build's rows and records.
"""

import collections
import os
import pathlib

import numpy as np

from data_pipelines import files
from data_pipelines.html import charts, markup
from data_pipelines.page import figures, sheet
from data_pipelines.rates import FRAME_RATE

FACE, TRIPLE = 72, 128  # px of a face in the strips of people, and in triples
# 6,000 clips of 200 people make a page of 3.3 MB; whatever the build, it stays below 10 MB.
PEOPLE, TRIPLES, MERGES, EXAMPLES, NAMES = 240, 12, 40, 5, 400
# Measure, title, unit, whether it counts, and the gates whose values stand in its histogram.
HISTOGRAMS = (
    ("yaw", "Yaw: face turned aside", "°", False, "yaw"),
    ("pitch", "Pitch: looks down or up", "°", False, ""),
    ("face", "Face width in the video", "px", False, "face"),
    ("sharpness", "Sharpness", "", False, "sharpness"),
    ("offset", "Sound late by", "frames", True, ""),
    ("loudness", "Loudness", "dBFS", False, "loudness"),
    ("seconds", "Length of clips", "s", False, ""),
    ("mouth", "Mouth visible", "", False, "mouth"),
    ("luma", "Light", "", False, ""),
)
STYLE = """
.tiles { display: grid; gap: 10px; grid-template-columns: repeat(auto-fill, minmax(150px, 1fr));
  margin: 1rem 0; } .tile b { display: block; font-size: 1.5rem; line-height: 1.2; }
.tile { color: var(--soft); font-size: 13px; } .tile b { color: var(--ink); }
.charts { display: grid; gap: 10px; grid-template-columns: repeat(auto-fill, minmax(300px, 1fr)); }
.people { display: grid; gap: 10px; grid-template-columns: repeat(auto-fill, minmax(500px, 1fr)); }
.people .label, .small { font-size: 12px; overflow-wrap: anywhere; }
.triples { display: grid; gap: 10px; grid-template-columns: repeat(auto-fill, minmax(330px, 1fr)); }
.bar { background: var(--bad); height: 10px; border-radius: 3px; min-width: 2px; }
ul { margin: 0; padding-left: 1.2rem; }
.split { border-radius: 4px; padding: 0 .4em; background: #eef4ff; color: var(--mark); }
.val { background: #ecfdf3; color: var(--good); } details { color: var(--soft); font-size: 12px; }
.pair { display: flex; gap: 4px; } .pair img { width: 72px; } td { vertical-align: top; }
.key { display: inline-block; width: 10px; height: 10px; border-radius: 2px; margin: 0 4px 0 10px; }
@media (max-width: 560px) { .people { grid-template-columns: 1fr; } }
"""


def write(out: str | os.PathLike, rows: list[dict], report: dict) -> pathlib.Path:
    """Writes out/index.html and returns its path; the same bytes for the same build.

    rows: of cutting.clips, one a video ("video", "refused", "clips"). The "measures" of a clip,
      kept or refused, are drawn where they are known, among them "offset" (frames); one refused for
      the reason "missing" is a video that a list names and no file holds.
    report: all optional: "reasons" {code: sentence} (quality.REASONS); "gates" {measure: value};
      "identities" (identities.Identities.report(): "merged", "divided", "close").
    Frames, clips and triples of `out` must have been written.

    Raises RecordError: there are none, or one cannot be read.
    """
    out = pathlib.Path(out)
    missing = [r["video"] for r in rows if any(x["reason"] == "missing" for x in r["refused"])]
    rows = [row for row in rows if row["video"] not in set(missing)]
    heard, frames = sheet.clips(out), sheet.frames(out)
    clips = heard + sheet.soundless(rows)
    people = sheet.identities(clips)
    counts, pictures = sheet.triples(out, TRIPLES, TRIPLE)
    sections = [
        "<h1>SwapTalk: data of a build</h1>",
        figures.tiles(rows, missing, len(heard), people, counts),
        figures.doubts(rows, missing, people, report),
        _reasons(rows, report.get("reasons", {})),
        _histograms(rows, report.get("gates", {})),
        _triples(pictures),
        _merges(frames, clips, report.get("identities", {})),
        _people(frames, people),
        _missing(missing),
    ]
    path = out / "index.html"
    files.replace_text(path, markup.page("SwapTalk: data of a build", sections, STYLE))
    return path


def _reasons(rows, sentences):
    groups = collections.defaultdict(list)
    for row in rows:
        for refused in row["refused"]:
            groups[refused["reason"]].append(refused)
    largest = max(map(len, groups.values()), default=1)
    lines = []
    for reason, own in sorted(groups.items(), key=lambda item: (-len(item[1]), item[0])):
        examples = "".join(
            f"<div>{markup.text(e['clip'])}: {markup.text(e['detail'])}</div>"
            for e in own[:EXAMPLES]
        )
        more = f"<div>and {len(own) - EXAMPLES:,} more</div>" if len(own) > EXAMPLES else ""
        lines.append(
            f"<tr><td><code>{markup.text(reason)}</code><td class=n>{len(own):,}"
            f"<td><div class=bar style='width:{100 * len(own) / largest:.0f}px'></div>"
            f"<td>{markup.text(sentences.get(reason, ''))}"
            f"<details><summary>examples</summary>{examples}{more}</details>"
        )
    head = "<tr><th>Reason<th>Count<th style='width:100px'><th>What it means"
    return markup.section(
        "Refused, and why",
        "A video that is refused as a whole counts as one.",
        f"<table>{head}{''.join(lines)}</table>",
        lines,
    )


def _histograms(rows, gates):
    kept, refused = (list(figures.measures(rows, key)) for key in ("clips", "refused"))
    cards = []
    for key, title, unit, whole, gate in HISTOGRAMS:
        lines = [gates[gate]] if gate in gates else []
        if key == "yaw":
            lines += [-line for line in lines]
        values = (_finite(m.get(key) for m in measures) for measures in (kept, refused))
        cards.append(charts.histogram(title, *values, unit, lines, whole))
    legend = "<span class=key style='background:{}'></span>{}".format
    return markup.section(
        "Clips by what was measured",
        "Medians of each clip."
        + legend("var(--mark)", "kept")
        + legend("var(--bad)", "refused, where it was measured")
        + legend("#f79009", "threshold"),
        f"<div class=charts>{''.join(cards)}</div>",
        "".join(cards),
    )


def _finite(values):
    return [v for v in values if isinstance(v, int | float) and np.isfinite(v)]


def _triples(pictures):
    cards = [
        f"<div class=card><p class=label>{_split(split)}</p><div class=faces>"
        f"{''.join(markup.embedded(image, 'swap', 'jpeg', 85) for image in images)}</div></div>"
        for split, own in pictures.items()
        for images in own
    ]
    return markup.section(
        "Proxy swaps: source, target, result",
        "What the swap module will learn: the source's features on the target's head, pose and"
        " light, without a seam.",
        f"<div class=triples>{''.join(cards)}</div>",
        cards,
    )


def _merges(frames, clips, report):
    meaning = {
        "merged": "one person under several names: joined",
        "divided": "several people under one name: kept on one side of the split",
        "close": "two people who look alike: may be one",
    }
    rows = [(kind, row) for kind in meaning for row in report.get(kind, [])]
    shown = rows[:MERGES]
    faces = sheet.portraits(frames, clips, {v for _, row in shown for v in row["videos"]}, FACE)
    lines = []
    for kind, row in shown:
        pictures = "".join(
            markup.embedded(faces[video], video, "jpeg", 80)
            for video in row["videos"]
            if video in faces
        )
        names = {"merged": " = ", "close": " ≈ "}.get(kind, "").join(
            markup.text(name) for name in row["identities"]
        )
        videos = ", ".join(markup.text(video) for video in row["videos"])
        lines.append(
            f"<tr><td><div class=pair>{pictures}</div><td><b>{names}</b>"
            f"<div class=small>{videos}</div>"
            f"<td class=n>{row['distance']:.3f}<td>{meaning[kind]}"
        )
    return markup.section(
        "Whose face is it? Names against faces",
        f"Distance of face embeddings. {_of(len(shown), len(rows))}",
        f"<table><tr><th><th>Names, videos<th>Distance<th>What was done{''.join(lines)}</table>",
        lines,
    )


def _people(frames, people):
    step = -(-len(people) // PEOPLE) or 1
    shown = list(people.items())[::step]
    cards = []
    for (split, name), own in shown:
        strip = markup.embedded(sheet.strip(frames, own, FACE), name, "jpeg", 80)
        seconds = figures.duration(sum(clip.count for clip in own) / FRAME_RATE)
        clips = f"{len(own):,} clip{'s' * (len(own) > 1)}, {seconds}"
        cards.append(
            f"<div class=card>{strip}<p class=label>{_split(split)} <b>{markup.text(name)}</b>,"
            f" {clips}</p></div>"
        )
    return markup.section(
        "People",
        "Eight faces of each, spread over the clips: one person a strip, upright, eyes on one"
        f" height. {_of(len(shown), len(people))}",
        f"<div class=people>{''.join(cards)}</div>",
        cards,
    )


def _missing(missing):
    names = ", ".join(markup.text(name) for name in missing[:NAMES])
    more = f" and {len(missing) - NAMES:,} more" if len(missing) > NAMES else ""
    return markup.section(
        f"Missing videos ({len(missing):,})",
        "The lists name them, no file holds them. Nothing is downloaded: fetch them by the lists'"
        " urls and build again.",
        f"<div class='card small'>{names}{more}</div>",
        missing,
    )


def _of(shown, total):
    """A note where the page leaves something out, to stay small."""
    return "" if shown == total else f"{shown:,} of {total:,} are shown."


def _split(split):
    return f"<span class='split {markup.text(split)}'>{markup.text(split)}</span>"

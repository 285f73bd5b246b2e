"""The figures at the head of a build's page: how much there is, and what to look at first."""

import collections

from data_pipelines.rates import FRAME_RATE


def tiles(rows, missing, kept, people, triples):
    """How much there is, at one look."""
    refused = sum(len(row["refused"]) for row in rows)
    used = sum(bool(row["clips"]) for row in rows)
    frames, count = collections.Counter(), collections.Counter()
    for (split, _), own in people.items():
        frames[split] += sum(clip.count for clip in own)
        count[split] += 1
    splits = [split for split in ("train", "val") if split in count]
    shown = [
        (kept, f"clips kept, {refused:,} refused"),
        (used, f"videos used of {len(rows) + len(missing):,}; {len(missing):,} missing"),
        (duration(sum(frames.values()) / FRAME_RATE), f"at {FRAME_RATE} frames a second"),
    ]
    for source, what in (("silent", "silent videos"), ("stills", "still pictures")):
        own = [row for row in rows if row.get("source") == source]
        if own:
            given = sum(clip["frames"] for row in own for clip in row["clips"])
            shown.append((given, f"frames, and no clips, of {len(own):,} {what}"))
    for split in splits:
        length = duration(frames[split] / FRAME_RATE)
        shown.append((count[split], f"identities in {split}, {length}"))
    each = ", ".join(f"{triples[s]:,} {s}" for s in triples)
    shown.append((sum(triples.values()), f"triples{': ' + each if each else ''}"))
    cells = (
        f"<div class='card tile'><b>{value if isinstance(value, str) else f'{value:,}'}</b>"
        f"{what}</div>"
        for value, what in shown
    )
    return f"<div class=tiles>{''.join(cells)}</div>"


def duration(seconds):
    """Seconds in words."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def doubts(rows, missing, people, report):
    """What a person should look at before training, each in a line; nothing where all is well."""
    lines, total = [], len(rows) + len(missing)
    if missing:
        lines.append(f"missing videos: {len(missing):,} of {total:,} (names at the end)")
    kept, refused = (sum(len(row[key]) for row in rows) for key in ("clips", "refused"))
    if refused > 0.3 * (kept + refused):
        lines.append(f"refused: {refused:,} of {kept + refused:,} clips")
    sides = collections.Counter(split for split, _ in people)
    # With 10 people to train on, the swaps and lips of strangers stayed bad; HDTF has over 200.
    wanted = (("train", 100, "strangers come out badly"), ("val", 2, "a swap takes two"))
    for split, fewest, why in wanted:
        if sides[split] < fewest:
            lines.append(f"{split} has {sides[split]} identities: {why}")
    for kind, what in (
        ("merged", "names that stand for one person, joined"),
        ("divided", "names that stand for several people"),
        ("close", "two people who may be one"),
    ):
        number = len(report.get("identities", {}).get(kind, []))
        if number:
            lines.append(f"{what}: {number:,} (below, with faces)")
    moved = [m["offset"] for m in measures(rows, "clips") if m.get("offset")]
    if moved:
        lines.append(
            f"sound was moved in {len(moved):,} clips, by {min(moved):+g} to {max(moved):+g} frames"
        )
    if not lines:
        return ""
    lines = "".join(f"<li>{line}" for line in lines)
    return f"<div class=notice><b>Look at this first</b><ul>{lines}</ul></div>"


def measures(rows, key):
    """Measures of the kept ("clips") or "refused" clips, with those that follow from the row."""
    for row in rows:
        for clip in row[key]:
            measures = dict(clip.get("measures") or {})
            if "frames" in clip:
                measures["seconds"] = clip["frames"] / FRAME_RATE
            if measures.get("light"):
                measures["luma"] = measures["light"][0]
            yield measures

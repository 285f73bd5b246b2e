"""Contact sheets of a build: pictures by which a person judges the data at one look."""

import os
import pathlib

import cv2
import numpy as np

from data_pipelines import records

ROWS, COLUMNS, THUMB = 40, 8, 96  # THUMB: pixels of one picture's side


def write(out: pathlib.Path) -> None:
    """Writes contact_sheet.jpg (identities) and contact_triples.jpg (if any) of a build's folder.

    One row per identity, evenly spread over its frames; of more than 40, every n-th identity.
    """
    rows = []
    for split in records.splits(out, "clips"):
        rows += _identities(out, split)
    _save(out / "contact_sheet.jpg", rows[:: -(-len(rows) // ROWS)])
    if (out / "triples").exists():
        rows = [row for split in records.splits(out, "triples") for row in _triples(out, split)]
        _save(out / "contact_triples.jpg", rows)


def _identities(out, split):
    frames, indices, names = records.source(out, "frames", split), {}, {}
    for clip in _all(records.source(out, "clips", split)):
        first, identity = int(clip["first"]), int(clip["identity"])
        indices.setdefault(identity, []).extend(range(first, first + int(clip["frames"])))
        names[identity] = clip["identity_name"]
    rows = []
    for identity, own in sorted(indices.items()):
        images = [records.decode_image(frames[i]["image"]) for i in _spread(own)]
        rows.append((f"{split} {names[identity]}", images))
    return rows


def _triples(out, split):
    frames, triples = (records.source(out, kind, split) for kind in ("frames", "triples"))
    chosen = [triples[i] for i in _spread(range(len(triples)))]
    pictures = {
        kind: [records.decode_image(frames[int(t[kind])]["image"]) for t in chosen]
        for kind in ("source", "target")
    }
    pictures["result"] = [records.decode_image(t["result"]) for t in chosen]
    return [(f"{split} {kind}", images) for kind, images in pictures.items()]


def _spread(sequence):
    return [sequence[i * len(sequence) // COLUMNS] for i in range(COLUMNS)]


def _all(source):
    return (source[i] for i in range(len(source)))


def _save(path, rows):
    lines = []
    for text, images in rows:
        label = np.full((THUMB, 2 * THUMB, 3), 255, np.uint8)
        for i in range(0, min(len(text), 66), 22):  # 22 characters fill the label's width
            at = (4, 30 + i // 22 * 18)
            cv2.putText(label, text[i : i + 22], at, cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0))
        size = (THUMB, THUMB)
        pictures = [cv2.resize(image, size, interpolation=cv2.INTER_AREA) for image in images]
        lines.append(np.hstack([label, *pictures]))
    sheet = cv2.cvtColor(np.vstack(lines), cv2.COLOR_RGB2BGR)
    part = path.with_name(f".{os.getpid()}-{path.name}")
    cv2.imwrite(str(part), sheet, [cv2.IMWRITE_JPEG_QUALITY, 90])
    os.replace(part, path)

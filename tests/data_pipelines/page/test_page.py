"""The page of a build: all that a person must see, nothing that runs, the same every time."""

import base64
import html.parser
import itertools
import json
import re

import cv2
import numpy as np
import pytest
import record_sets

from data_pipelines.html import charts, markup
from data_pipelines.page import page
from data_pipelines.records import kinds

SIZE, FRAMES = 48, 12
HOSTILE = "<script>alert('x')</script>\"& .mp4"


def face(rng):
    return kinds.encode_image(rng.integers(0, 255, (SIZE, SIZE, 3), dtype=np.uint8))


def build(root, people, clips_each=2, triples=3):
    """Records of people {name: split}, and the rows of their videos."""
    rng, names, rows = np.random.default_rng(0), list(people), []
    metadata = {"size": SIZE, "identities": names}
    with (
        record_sets.Writer(root, "frames", metadata) as frames,
        record_sets.Writer(root, "clips", metadata) as clips,
    ):
        for name, number in itertools.product(names, range(clips_each)):
            video = f"{name}{number}.mp4"
            own = {"matrix": np.eye(2, 3, dtype=np.float32), "identity": names.index(name)}
            own |= {"landmarks": np.zeros((68, 2), np.float32), "clip": video}
            for i in range(FRAMES):
                last = frames.write(people[name], own | {"image": face(rng), "frame": i})
            record = {"name": video, "identity": names.index(name), "identity_name": name}
            record |= {"first": last + 1 - FRAMES, "frames": FRAMES}
            record |= {"audio": np.zeros(640 * FRAMES, np.int16)}
            clips.write(people[name], record | {"meta": json.dumps({"file": video})})
            measures = {"yaw": 3.0 * number, "face": 200.0, "offset": number, "light": [0.5, 0, 0]}
            clip = {"name": f"{video}#0", "frames": FRAMES, "measures": measures}
            rows.append({"video": video, "identity": name, "refused": [], "clips": [clip]})
    if triples:
        with record_sets.Writer(root, "triples", metadata) as writer:
            for i in range(triples):
                pair = {"source": i, "target": FRAMES + i, "result": face(rng)}
                writer.write("train", pair | {"source_identity": 0, "target_identity": 1})
    return rows


def refused(video, reason, detail, count=1):
    entry = {"clip": video, "reason": reason, "detail": detail}
    return {"video": video, "identity": "x", "refused": [entry] * count, "clips": []}


class Reader(html.parser.HTMLParser):
    """Tags, attributes and visible text, as a browser would understand them."""

    def __init__(self, source):
        super().__init__()
        self.tags, self.attributes, self.text = [], [], ""
        self.feed(source)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """(folder, rows, report, page as a browser reads it) of a small build with every trouble."""
    root = tmp_path_factory.mktemp("built")
    rows = build(root, {"Ann": "train", HOSTILE: "train", "Cem": "val"})
    rows += [refused("wide.mp4", "small_face", "face of 31 px, below 64", 7)]
    rows += [refused(HOSTILE, "<b>bold", f"{HOSTILE}: no sound")]
    rows += [refused("WDA_Gone0.mp4", "missing", "no such file")]
    report = {
        "reasons": {"small_face": "The face has too few pixels for the crop."},
        "gates": {"face": 64.0, "yaw": 35.0},
        "identities": {
            "merged": [
                {"identities": ["Ann", HOSTILE], "videos": ["Ann0.mp4", "absent"], "distance": 0.41}
            ],
            "divided": [],
            "close": [{"identities": ["Ann", "Cem"], "videos": ["Ann1.mp4"], "distance": 0.58}],
        },
    }
    path = page.write(root, rows, report)
    return root, rows, report, Reader(path.read_text())


def test_counts_come_first(built):
    text = built[3].text
    for part in (
        "6clips kept, 8 refused",
        "6videos used of 9; 1 missing",
        "2identities in train",
        "1identities in val",
        "3triples: 3 train",
    ):
        assert part in text
    assert text.index("clips kept") < text.index("Refused, and why") < text.index("Eight faces")


def test_every_reason_is_counted_explained_and_shown_by_examples(built):
    text = built[3].text
    row = text[text.index("small_face") :]
    assert row.startswith("small_face7The face has too few pixels for the crop.examples")
    assert text.count("wide.mp4: face of 31 px, below 64") == page.EXAMPLES
    assert "and 2 more" in text
    assert f"{HOSTILE}: {HOSTILE}: no sound" in text


def test_missing_videos_are_listed_and_are_not_refused_clips(built):
    text = built[3].text
    assert "Missing videos (1)" in text and "WDA_Gone0.mp4" in text
    assert text.count("missing") == text.count("; 1 missing") + text.count("missing videos: 1")


def test_names_are_text_and_never_tags(built):
    reader = built[3]
    assert not {"script", "b:bold", "iframe", "link", "object"} & set(reader.tags)
    assert reader.text.count("<script>alert('x')</script>") >= 3
    assert not [row for row in reader.attributes if row[1].startswith("on")]


def test_the_page_needs_no_other_file(built):
    sources = [value for tag, name, value in built[3].attributes if name in ("src", "href")]
    assert sources and all(value.startswith("data:image/") for value in sources)
    assert "url(" not in (built[0] / "index.html").read_text()
    assert {p.name for p in built[0].iterdir()} == {"frames", "clips", "triples", "index.html"}


def test_the_page_is_the_same_every_time(built):
    root, rows, report, _ = built
    before = (root / "index.html").read_bytes()
    assert page.write(root, rows, report).read_bytes() == before


def pictures(root):
    """[(alt text, uint8 [h w 3]) ...] of the page."""
    found = re.findall(r"alt='([^']*)' src='data:image/\w+;base64,([^']*)'", root)
    return [
        (alt, cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR))
        for alt, data in found
    ]


def test_every_person_has_a_strip_of_faces_and_every_triple_its_three(built):
    shown = pictures((built[0] / "index.html").read_text())
    strips = [image for _, image in shown if image.shape == (page.FACE, 8 * page.FACE, 3)]
    assert len(strips) == 3
    assert len([alt for alt, _ in shown if alt == "swap"]) == 3 * 3
    faces = np.hsplit(strips[0], 8)
    assert np.abs(np.diff(np.float32(faces), axis=0)).mean((1, 2, 3)).min() > 10  # all different


def test_names_against_faces_show_both_and_what_was_done(built):
    text = built[3].text
    assert f"Ann = {HOSTILE}" in text and "0.410one person under several names: joined" in text
    assert "Ann ≈ Cem" in text and "may be one" in text
    assert "two people who may be one: 1" in text
    portraits = [alt for alt, _ in pictures((built[0] / "index.html").read_text()) if "mp4" in alt]
    assert "ann0.mp4" in portraits and "ann1.mp4" in portraits


def test_moved_sound_is_told(built):
    assert "sound was moved in 3 clips, by +1 to +1 frames" in built[3].text


def test_a_build_without_measures_triples_or_troubles_has_a_page_too(tmp_path):
    rows = build(tmp_path, {"Ann": "train"}, triples=0)
    for row in rows:
        row["clips"] = [{"name": row["video"]}]
    text = Reader(page.write(tmp_path, rows, {}).read_text()).text
    assert "2clips kept, 0 refused" in text and "0triples" in text
    for absent in ("Refused, and why", "Clips by what", "Proxy swaps", "Whose face", "Missing"):
        assert absent not in text


def test_without_records_one_line_says_so(tmp_path):
    with pytest.raises(kinds.RecordError, match="there are no frames here"):
        page.write(tmp_path, [], {})
    assert not list(tmp_path.iterdir())


def test_many_people_are_capped_and_the_page_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(page, "PEOPLE", 5)
    rows = build(tmp_path, {f"P{i:02d}": "train" for i in range(12)}, clips_each=1, triples=0)
    text = Reader(page.write(tmp_path, rows, {}).read_text()).text
    assert "4 of 12 are shown" in text


def heights(svg, colour):
    found = re.findall(rf"height='([\d.]+)' fill='var\(--{colour}\)'", svg)
    return [float(height) for height in found]


def test_a_histogram_stacks_refused_on_kept():
    svg = charts.histogram("Yaw", [0.0, 0.0, 10.0], [10.0], "°", [5.0, 99.0])
    assert heights(svg, "mark") == [76.0, 38.0] and heights(svg, "bad") == [38.0]
    assert svg.count("stroke-dasharray") == 1  # the other threshold lies outside


def test_an_outlier_does_not_squeeze_a_histogram():
    svg = charts.histogram("Face", [*range(1000), 1e9], [])
    assert len(heights(svg, "mark")) == charts.BINS
    assert sum(int(n) for n in re.findall(r"<title>(\d+) at", svg)) == 1001


def test_whole_numbers_have_a_bar_each():
    svg = charts.histogram("Offset", [-2, 0, 0, 0, 3], [], "frames", whole=True)
    assert re.findall(r"<title>(\d+) at ([-\d]+)<", svg) == [("1", "-2"), ("3", "0"), ("1", "3")]


@pytest.mark.parametrize("values", [[1.0], [0.0, 0.0], [-5e-12, 5e-12], [1e12]])
def test_equal_values_are_one_bar(values):
    assert heights(charts.histogram("Mouth", values, []), "mark") == [76.0]


def test_no_values_no_histogram():
    assert charts.histogram("Mouth", [], []) == ""


def test_text_is_safe_between_tags_and_in_quotes():
    assert markup.text("<&'\">") == "&lt;&amp;&#x27;&quot;&gt;"

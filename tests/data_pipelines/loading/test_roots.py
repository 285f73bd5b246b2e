"""Several roots: examples in the proportions of their weights, and still a function of the step."""

import itertools

import numpy as np
import pytest
import record_sets
from ml_collections import config_dict

from configs import identity
from data_pipelines.loading import loader, roots
from data_pipelines.records import kinds
from swaptalk_jax import stages

PEOPLE = 3  # of each root


def frames(count, level):
    image = kinds.encode_image(np.full((16, 16, 3), level, np.uint8))
    frame = {"image": image, "landmarks": np.zeros((68, 2), np.float32), "clip": "c"}
    frame |= {"matrix": np.zeros((2, 3), np.float32)}
    return [frame | {"identity": i % PEOPLE, "frame": i} for i in range(count)]


def clips(count, level):
    clip = {"codes": np.full((9, 4, 2), level, np.uint16), "first": 0, "identity": 0}
    clip |= {"features": np.zeros((18, 3), np.float16), "embedding": np.ones(2, np.float32)}
    return [clip | {"name": f"clip{i}"} for i in range(count)]


def swaps(count, level):
    codes, width = np.full((4, 2), level, np.uint16), np.ones(2, np.float32)
    swap = dict.fromkeys(("source", "target", "result"), codes)
    swap |= {"id_source": width, "id_result": width}
    return [swap | {"source_identity": i % PEOPLE, "target_identity": 1} for i in range(count)]


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """Three roots of different sizes; what they hold has the level 10, 20, 30."""
    folders = []
    for count, level in ((20, 10), (7, 20), (50, 30)):
        folder = tmp_path_factory.mktemp("root")
        metadata = record_sets.CODES | {"identities": [f"{level} {i}" for i in range(PEOPLE)]}
        for kind, make in (("frames", frames), ("codes", clips), ("swaps", swaps)):
            record_sets.write(folder, kind, metadata, {"train": make(count, level)})
        folders.append(str(folder))
    return folders


def config(three, *weights):
    return {"root": three[0], "extra": tuple(zip(three[1:], weights, strict=False))}


def batches(config, view, n, size=8, **kwargs):
    return list(itertools.islice(loader.dataset(config, "train", view, size, 7, **kwargs), n))


def assert_same(a, b):
    for x, y in zip(a, b, strict=True):
        for name in x:
            np.testing.assert_array_equal(x[name], y[name])


@pytest.mark.parametrize("view, field", [("images", "image"), ("windows", "codes")])
def test_roots_come_in_the_proportions_of_their_weights(three, view, field):
    drawn = batches(config(three, 0.5, 0.25), view, 14)
    levels = np.concatenate([batch[field] for batch in drawn]).reshape(112, -1)[:, 0]
    shares = {int(level): int((levels == level).sum()) for level in np.unique(levels)}
    assert shares == {10: 64, 20: 32, 30: 16}


@pytest.mark.parametrize("view", ["images", "pairs", "windows", "swaps"])
def test_restarts_hosts_and_workers_change_nothing(three, view):
    several = config(three, 0.5, 2)
    whole = batches(several, view, 6)
    assert_same(batches(several, view, 2, step=4), whole[4:])
    parts = [batches(several, view, 6, rows=range(4 * h, 4 * h + 4)) for h in range(2)]
    joined = [{k: np.concatenate([a[k], b[k]]) for k in a} for a, b in zip(*parts, strict=True)]
    assert_same(joined, whole)
    if view == "windows":
        assert_same(batches(several, view, 3, step=3, workers=2), whole[3:])


@pytest.mark.parametrize("view", ["images", "windows", "swaps"])
def test_no_further_root_is_as_ever(three, view):
    assert_same(batches({"root": three[0]}, view, 4), batches(config(three), view, 4))


def test_people_of_two_roots_are_never_one_class(three):
    several = config(three, 1, 1)
    for batch in batches(several, "images", 6):
        level = batch["image"][:, 0, 0, 0] // 10
        assert (batch["identity"] // PEOPLE == level - 1).all()
        assert batch["identity"].dtype == np.int32
    for batch in batches(several, "swaps", 6):
        level = batch["result"][:, 0, 0] // 10
        assert (batch["source_identity"] // PEOPLE == level - 1).all()
        assert (batch["target_identity"] // PEOPLE == level - 1).all()
    for data, people in ((several, 3 * PEOPLE), ({"root": three[0]}, PEOPLE)):
        assert len(roots.metadata(data, "frames")["identities"]) == people


def test_the_recogniser_has_a_class_for_each(three):
    micro = identity.get_config("micro")
    micro.data.root, micro.data.extra = three[0], config(three, 1, 1)["extra"]
    known = roots.metadata(micro.data, "frames")
    assert stages.make(micro, {}, known).classes == 3 * PEOPLE


def test_evaluation_is_of_the_first_root(three):
    several = config(three, 1, 1) | {"eval_examples": 16}
    (batch,) = loader.evaluation(several, "train", "images", 16, seed=0)
    assert (batch["image"] == 10).all()


def test_a_config_may_hold_them(three):
    several = config_dict.ConfigDict(config(three, 0.5, 0.25))
    assert_same(batches(several, "images", 2), batches(config(three, 0.5, 0.25), "images", 2))


@pytest.mark.parametrize(
    "extra, line",
    [
        (("more",), "give a tuple of"),
        ((("more", "much"),), "give a tuple of"),
        ((("more", 0),), "more has the weight 0.0"),
        ((("more", float("nan")),), "more has the weight nan"),
        ((("more", 1), ("more", 2)), "more is named twice"),
        ((("nowhere", 1),), "nowhere/frames/1.0.0: there are no frames"),
    ],
)
def test_wrong_roots_are_one_line(three, extra, line):
    with pytest.raises(kinds.RecordError, match=line) as caught:
        batches({"root": three[0], "extra": extra}, "images", 1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "view, change, line",
    [
        ("images", {"size": 32}, "its size is 32, but that of .* is 16"),
        ("windows", {"fingerprint": "bbbb"}, "its fingerprint is bbbb"),
        ("pairs", {"audio_fingerprint": "x"}, "its audio_fingerprint is x"),
        ("swaps", {"recogniser": "cccc"}, "its recogniser is cccc"),
    ],
)
def test_sets_of_other_networks_are_refused(three, tmp_path, view, change, line):
    kind = {"images": "frames", "swaps": "swaps"}.get(view, "codes")
    make = {"frames": frames, "swaps": swaps, "codes": clips}[kind]
    record_sets.write(tmp_path, kind, record_sets.CODES | change, {"train": make(9, 1)})
    with pytest.raises(kinds.RecordError, match=line):
        batches({"root": three[0], "extra": ((str(tmp_path), 1.0),)}, view, 1)


def test_data_that_stays_on_the_devices_is_of_one_root(three):
    with pytest.raises(kinds.RecordError, match="resident holds one root"):
        loader.resident(config(three, 1), "train", "windows")

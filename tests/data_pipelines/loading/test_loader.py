"""The loader is a function of the step: same batches for any workers, hosts and restarts."""

import itertools

import numpy as np
import pytest
import record_sets

from data_pipelines import benchmark
from data_pipelines.loading import loader
from data_pipelines.records import kinds
from data_pipelines.synthetic import random_records

CLIPS, FRAMES, WIDTH = 5, 20, 3
METADATA = record_sets.CODES | {"audio_width": WIDTH}
VIEWS = ("images", "pairs", "windows", "swaps")


def codes_of(i, frames=FRAMES):
    """Clip i: every code of frame t is 100 i + t, every feature of token k is 100 i + k / 2."""
    grid = np.broadcast_to((100 * i + np.arange(frames))[:, None, None], (frames, 4, 2))
    tokens = np.broadcast_to((100 * i + np.arange(2 * frames) / 2)[:, None], (2 * frames, WIDTH))
    return {
        "name": f"clip{i}",
        "identity": i % 2,
        "first": FRAMES * i,
        "codes": grid.astype(np.uint16),
        "features": tokens.astype(np.float16),
        "embedding": np.array([1, 0], np.float32),
    }


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("records")
    long = [codes_of(i) for i in range(CLIPS)]
    short = {"one": [codes_of(0)], "short": [codes_of(0, frames=4)]}
    record_sets.write(root, "codes", METADATA, {"train": long} | short)
    frames = []
    for i in range(21):
        image = np.zeros((16, 16, 3), np.uint8)
        image[:, :8] = i
        frame = {
            "image": kinds.encode_image(image),
            "landmarks": np.zeros((68, 2), np.float32),
            "matrix": np.zeros((2, 3), np.float32),
        }
        frames.append(frame | {"identity": i, "clip": "c", "frame": i})
    record_sets.write(root, "frames", METADATA, {"train": frames})
    swaps = []
    for i in range(9):
        embedding = np.array([i, 0], np.float32)
        grid = np.full((4, 2), i, np.uint16)
        swap = {"source": grid, "target": grid, "result": grid, "id_source": embedding}
        swap |= {"id_result": embedding, "source_identity": i, "target_identity": 0}
        swaps.append(swap)
    record_sets.write(root, "swaps", METADATA, {"train": swaps})
    return root


def batches(root, view, n, size=4, split="train", **kwargs):
    config = {"root": root, "flip": True}
    iterator = loader.dataset(config, split, view, size, seed=7, **kwargs)
    return list(itertools.islice(iterator, n))


def assert_same(a, b):
    assert len(a) == len(b)
    for x, y in zip(a, b, strict=True):
        assert x.keys() == y.keys()
        for name in x:
            np.testing.assert_array_equal(x[name], y[name])


@pytest.mark.parametrize("view", VIEWS)
def test_shapes_are_as_declared(root, view):
    (batch,) = batches(root, view, 1)
    shapes = {name: (value.shape, value.dtype.name) for name, value in batch.items()}
    grid = ((4, 4, 2), "uint16")
    assert (
        shapes
        == {
            "images": {"image": ((4, 16, 16, 3), "uint8"), "identity": ((4,), "int32")},
            "pairs": {
                "codes": ((4, 5, 4, 2), "uint16"),
                "audio": ((4, 10, WIDTH), "float32"),
                "label": ((4,), "float32"),
            },
            "windows": {
                "codes": ((4, 5, 4, 2), "uint16"),
                "reference": grid,
                "audio": ((4, 5, 10, WIDTH), "float32"),
            },
            "swaps": {
                "source": grid,
                "target": grid,
                "result": grid,
                "id_source": ((4, 2), "float32"),
                "id_result": ((4, 2), "float32"),
                "source_identity": ((4,), "int32"),
                "target_identity": ((4,), "int32"),
            },
        }[view]
    )


@pytest.mark.parametrize("view", VIEWS)
def test_a_restart_is_a_slice_and_hosts_share_the_batch(root, view):
    whole = batches(root, view, 6)
    assert_same(batches(root, view, 2, step=4), whole[4:])
    padded = [{k: v[[0, 1, 2, 3, 3, 3]] for k, v in batch.items()} for batch in whole]
    for shares in ([[0, 1], [2, 3], [4, 5]], [[0, 5], [1, 2, 3, 4]]):
        for rows in shares:
            own = batches(root, view, 6, rows=rows)
            assert_same(own, [{k: v[rows] for k, v in batch.items()} for batch in padded])
            assert_same(batches(root, view, 2, step=4, rows=rows), own[4:])


def test_workers_do_not_change_the_batches(root):
    assert_same(batches(root, "windows", 5, workers=2, step=3), batches(root, "windows", 5, step=3))


def test_an_epoch_holds_every_record_once_and_epochs_differ(root):
    orders = [b["identity"] for b in batches(root, "images", 6, size=7)]
    first, second = np.concatenate(orders[:3]), np.concatenate(orders[3:])
    assert sorted(first) == sorted(second) == list(range(21))
    assert list(first) != list(second)


def test_flip_mirrors_about_half(root):
    images = np.concatenate([b["image"] for b in batches(root, "images", 20, size=20)])
    identities = np.concatenate([b["identity"] for b in batches(root, "images", 20, size=20)])
    images = images[identities > 0]
    assert 0.4 < (images[:, 0, 0, 0] == 0).mean() < 0.6


def test_pairs_hold_positives_and_both_kinds_of_negatives(root):
    batch = batches(root, "pairs", 100)
    codes = np.concatenate([b["codes"] for b in batch])[:, :, 0, 0].astype(int)
    sound = np.concatenate([b["audio"] for b in batch])[:, :, 0]
    label = np.concatenate([b["label"] for b in batch])
    start, heard = codes[:, 0], sound[:, 0]
    np.testing.assert_array_equal(codes, start[:, None] + np.arange(5))
    np.testing.assert_array_equal(sound, heard[:, None] + np.arange(10) / 2)
    assert (heard[label == 1] == start[label == 1]).all()
    start, heard = start[label == 0], heard[label == 0]
    same = start // 100 == heard // 100
    assert (abs(start - heard)[same] >= 3).all()
    assert 0.4 < label.mean() < 0.6 and 0.4 < same.mean() < 0.6


def test_windows_hear_the_sound_of_their_frames_and_refer_to_another_frame(root):
    for batch in batches(root, "windows", 30):
        rows = zip(batch["codes"], batch["reference"], batch["audio"], strict=True)
        for codes, reference, sound in rows:
            frames = codes[:, 0, 0].astype(int)
            i, start = divmod(frames[0], 100)
            assert 2 <= start <= FRAMES - 5 - 2  # no token is out of the clip
            assert reference[0, 0] // 100 == i and reference[0, 0] not in frames
            tokens = sound[:, :, 0]
            np.testing.assert_array_equal(tokens[:, 4], frames)  # token 2i of frame i
            np.testing.assert_array_equal(np.diff(tokens, axis=1), 0.5)


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("hosts", [1, 2])
def test_evaluation_is_fixed_whatever_the_batch(root, view, hosts):
    config = {"root": root, "eval_examples": 10, "flip": True}

    def examples(size, hosts):
        rows = []
        each = -(-size // hosts)  # the last host's share is filled up
        shares = [range(h * each, (h + 1) * each) for h in range(hosts)]
        parts = [loader.evaluation(config, "train", view, size, 3, share) for share in shares]
        for step in zip(*parts, strict=True):  # all hosts have the same number of batches
            for batch in step:
                assert len(batch["mask"]) == each
                rows += [{k: v[i] for k, v in batch.items()} for i in range(each)]
        return [row for row in rows if row["mask"]]

    once = examples(1, 1)
    assert len(once) == (9 if view == "swaps" else 10)
    assert_same(once, examples(4, hosts))
    assert_same(once, examples(3, hosts))


def test_evaluation_refers_to_the_first_frame_and_pairs_come_in_twos(root):
    (batch,) = loader.evaluation({"root": root}, "train", "windows", 20, seed=0)
    assert (batch["reference"] % 100 == 0).all() and batch["mask"].all()
    assert (batch["codes"][:, 0, 0, 0] // 100 == np.tile(np.arange(CLIPS), 4)).all()
    (batch,) = loader.evaluation({"root": root}, "train", "pairs", 20, seed=0)
    np.testing.assert_array_equal(batch["label"], np.tile([1, 0], 10))
    np.testing.assert_array_equal(batch["codes"][::2], batch["codes"][1::2])


def test_what_cannot_be_batched_is_one_clear_line(root):
    with pytest.raises(kinds.RecordError, match="21 records, fewer than a batch of 22"):
        batches(root, "images", 1, size=22)
    assert len(batches(root, "windows", 1, size=16, split="one")[0]["codes"]) == 16
    with pytest.raises(kinds.RecordError, match="16 windows of 5 frames"):
        batches(root, "windows", 1, size=17, split="one")
    with pytest.raises(ValueError, match="no view 'faces'"):
        batches(root, "faces", 1)
    with pytest.raises(kinds.RecordError, match="4 frames, but a window takes 5"):
        next(loader.evaluation({"root": root}, "short", "windows", 1, seed=0))
    with pytest.raises(kinds.RecordError, match="pairs need more clips or longer ones"):
        list(loader.evaluation({"root": root, "window": 18}, "one", "pairs", 4, seed=0))


def test_the_benchmark_reads_records_that_are_made_up_and_ones_own(tmp_path):
    with pytest.raises(kinds.RecordError, match="holds no records"):
        benchmark.rates(tmp_path)
    sizes = {"size": 32, "grid": (2, 2), "audio_width": 80, "embedding": 512}
    random_records.write(tmp_path, sizes)
    found = benchmark.rates(tmp_path, seconds=0.05)
    assert found.keys() == {"images", "pairs", "windows", "swaps"}
    for view, rate in found.items():
        assert rate["examples"] > 0
        assert rate["frames"] == pytest.approx(rate["examples"] * benchmark.FRAMES[view], abs=5)
    (tmp_path / "codes" / "1.0.0" / "dataset_info.json").write_text("{}")
    with pytest.raises(kinds.RecordError, match="lacks the splits"):
        benchmark.rates(tmp_path)

"""Record kinds: written whole or not at all, read by TFDS alone, corrupt ones named."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import record_sets
import tensorflow_datasets as tfds

from data_pipelines.records import kinds, reader
from data_pipelines.records.shards import Shards
from swaptalk_jax.weights import encoded

CODES = {
    "identities": ["ann", "bob"],
    "fingerprint": "aaaa",
    "vqgan": "runs/vqgan",
    "grid": [4, 2],
    "audio": "log_mel",
    "audio_width": 3,
    "embedding": 2,
}


def clip(i, frames=6):
    return {
        "name": f"ann/{i}é",
        "identity": i % 2,
        "first": 6 * i,
        "codes": np.full((frames, 4, 2), i, np.uint16),
        "features": np.full((2 * frames, 3), i, np.float16),
        "embedding": np.array([1, 0], np.float32),
    }


def write(root, n=5, metadata=CODES, per_shard=None):
    clips = {"train": [clip(i) for i in range(n)], "val": [clip(n, frames=9)]}
    record_sets.write(root, "codes", metadata, clips, per_shard)


def test_what_is_written_is_read(tmp_path):
    write(tmp_path)
    source = reader.source(tmp_path, "codes", "train")
    assert len(source) == 5
    for i, record in enumerate(source):
        for name, value in clip(i).items():
            np.testing.assert_array_equal(record[name], value)
    assert source[0]["codes"].dtype == np.uint16 and source[0]["name"] == "ann/0é"
    assert len(reader.source(tmp_path, "codes", "val")[0]["codes"]) == 9
    assert reader.metadata(tmp_path, "codes") == CODES
    with pytest.raises(IndexError):
        source[5]


def test_shards_keep_the_order(tmp_path):
    write(tmp_path, n=7, per_shard=3)
    names = sorted(p.name for p in (tmp_path / "codes" / "1.0.0").glob("*train*"))
    assert len(names) > 2
    assert names[0] == f"swaptalk_codes-train.array_record-00000-of-{len(names):05d}"
    source = reader.source(tmp_path, "codes", "train")
    assert [int(r["first"]) for r in source] == [6 * i for i in range(7)]


@pytest.mark.parametrize("kind", list(kinds.REQUIRED))
def test_tfds_reads_every_kind_without_us(tmp_path, kind):
    metadata = CODES | {"size": 8}
    record = {}
    for name, feature in kinds.features(kind, metadata).items():
        if isinstance(feature, tfds.features.Text):
            record[name] = "text é"
        elif feature.np_dtype == np.object_:
            record[name] = kinds.encode_image(np.zeros((8, 8, 3), np.uint8))
        else:
            shape = [2 if n is None else n for n in feature.shape]
            record[name] = np.ones(shape, feature.np_dtype)
    record_sets.write(tmp_path, kind, metadata, {"train": [record]})
    builder = tfds.builder_from_directory(tmp_path / kind / kinds.VERSION)
    assert builder.info.metadata == metadata
    (read,) = builder.as_data_source("train")
    assert read.keys() == record.keys()
    for name, value in record.items():
        wanted = value.encode() if isinstance(value, str) else value
        np.testing.assert_array_equal(read[name], wanted)


def test_nothing_imports_tensorflow_or_jax():
    check = (
        "import sys; from data_pipelines import records;"
        "assert 'tensorflow' not in sys.modules and 'jax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", check], check=True)


def test_a_shard_appears_whole_and_a_stopped_set_goes_on(tmp_path):
    write(tmp_path)
    other = CODES | {"fingerprint": "bbbb"}
    begun = Shards(tmp_path, "codes", other)
    begun.write("train", 1, [clip(1)])

    def broken():
        yield clip(0)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        begun.write("train", 0, broken())
    with pytest.raises(kinds.RecordError, match="shard 0 of train is not finished"):
        begun.publish({"train": 2})
    assert len(reader.source(tmp_path, "codes", "train")) == 5  # what was there stays
    again = Shards(tmp_path, "codes", other)
    assert [again.finished("train", i) for i in (0, 1)] == [False, True]
    again.write("train", 0, [clip(0)])
    again.write("train", 1, broken())  # stands, so nothing is read
    again.publish({"train": 2, "val": 0})
    assert again.published() and again.finished("train", 0)
    again.publish({"train": 2, "val": 0})  # a run that was killed just after does no harm
    assert [p.name for p in tmp_path.iterdir()] == ["codes"]
    names = sorted(p.name for p in (tmp_path / "codes" / "1.0.0").glob("*-of-*"))
    assert names == [f"swaptalk_codes-train.array_record-0000{i}-of-00002" for i in (0, 1)]
    assert [int(r["first"]) for r in reader.source(tmp_path, "codes", "train")] == [0, 6]


def test_a_publication_that_was_killed_is_finished_by_the_next_run(tmp_path, monkeypatch):
    made = Shards(tmp_path, "codes", CODES)
    made.write("train", 0, [clip(0)])
    made.write("train", 1, [])  # an empty shard leaves no file behind

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Shards, "_describe", killed)
        made.publish({"train": 2})
    made.publish({"train": 2})
    assert len(reader.source(tmp_path, "codes", "train")) == 1
    assert not list((tmp_path / "codes").rglob(".*"))


def test_a_finished_shard_that_was_deleted_is_named_and_made_again(tmp_path):
    made = Shards(tmp_path, "codes", CODES)
    made.write("train", 0, [clip(0)])
    (made.staging / kinds.VERSION / "train-0").unlink()
    with pytest.raises(kinds.RecordError, match="train-0: the shard is gone"):
        made.publish({"train": 1})
    made.write("train", 0, [clip(0)])
    made.publish({"train": 1})


def test_the_same_records_make_the_same_bytes_in_every_process(tmp_path):
    write(tmp_path / "a", per_shard=2)
    code = "import sys, test_records; test_records.write(sys.argv[1], per_shard=2)"
    command = [sys.executable, "-c", code, str(tmp_path / "b")]
    subprocess.run(
        command,
        check=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])},
    )
    paths = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*"))
    assert paths == sorted(p.relative_to(tmp_path / "b") for p in (tmp_path / "b").rglob("*"))
    for path in (p for p in paths if (tmp_path / "a" / p).is_file()):
        assert (tmp_path / "a" / path).read_bytes() == (tmp_path / "b" / path).read_bytes(), path


@pytest.mark.parametrize(
    "change, line",
    [
        ({"codes": np.zeros((6, 2, 2), np.uint16)}, "codes"),
        ({"codes": np.zeros((6, 4, 2), np.int32)}, "codes"),
        ({"more": 1}, "more"),
    ],
)
def test_a_record_of_another_shape_dtype_or_field_is_refused(tmp_path, change, line):
    with pytest.raises(kinds.RecordError, match=line):
        record_sets.write(tmp_path, "codes", CODES, {"train": [clip(0) | change]})
    assert not (tmp_path / "codes").exists()


def test_a_corrupt_record_names_its_shard_and_number(tmp_path):
    write(tmp_path, n=7, per_shard=3)
    shards = sorted((tmp_path / "codes" / "1.0.0").glob("*train*"))
    first = reader.splits(tmp_path, "codes")["train"][0]
    data = bytearray(shards[1].read_bytes())
    at = data.index(np.full(8, first, np.uint16).tobytes())  # codes of that shard's first record
    data[at : at + 4] = b"\xff\xff\xff\xff"
    shards[1].write_bytes(data)
    source = reader.source(tmp_path, "codes", "train")
    assert int(source[0]["first"]) == 0
    with pytest.raises(kinds.RecordError) as error:
        source[first]
    assert f"{shards[1]}: record 0 (number {first} of train)" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_flipped_byte_anywhere_is_named_or_does_no_harm(tmp_path):
    write(tmp_path, n=7, per_shard=3)
    shard = sorted((tmp_path / "codes" / "1.0.0").glob("*train*"))[1]
    whole = shard.read_bytes()
    wanted = list(reader.source(tmp_path, "codes", "train"))
    used = np.flatnonzero(np.frombuffer(whole, np.uint8))  # the rest is padding
    named = set()
    for at in used[::11].tolist():
        data = bytearray(whole)
        data[at] ^= 0x55
        shard.write_bytes(data)
        source = reader.source(tmp_path, "codes", "train")
        for i, record in enumerate(wanted):
            try:
                read = source[i]
            except kinds.RecordError as error:
                assert f"{shard}: record {i - 3} (number {i} of train)" in str(error)
                named.add(i)
            else:
                for name, value in record.items():
                    np.testing.assert_array_equal(read[name], value)
    assert named == {3, 4, 5}


@pytest.mark.parametrize("damage", ["cut early", "cut late", "empty", "missing", "longer"])
def test_a_damaged_shard_is_named_and_the_others_are_read(tmp_path, damage):
    write(tmp_path, n=7, per_shard=3)
    shard = sorted((tmp_path / "codes" / "1.0.0").glob("*train*"))[1]
    whole = shard.read_bytes()
    if damage == "missing":
        shard.unlink()
    else:
        parts = {"cut early": whole[:2000], "cut late": whole[:-100], "longer": whole + bytes(100)}
        shard.write_bytes(parts.get(damage, b""))
    source = reader.source(tmp_path, "codes", "train")
    for i in range(7):
        if i in (3, 4, 5):
            with pytest.raises(kinds.RecordError) as error:
                source[i]
            assert f"{shard}: record {i - 3} (number {i} of train)" in str(error.value)
            assert "\n" not in str(error.value)
        else:
            assert int(source[i]["first"]) == 6 * i


@pytest.mark.parametrize("change", [-1, 1])
def test_another_number_of_shards_than_the_files_say_is_named(tmp_path, change):
    write(tmp_path, n=7, per_shard=3)
    path = tmp_path / "codes" / "1.0.0" / "dataset_info.json"
    info = json.loads(path.read_text())
    (split,) = [s for s in info["splits"] if s["name"] == "train"]
    split["shardLengths"] = ["3"] * (3 + change)
    path.write_text(json.dumps(info))
    with pytest.raises(kinds.RecordError, match=f"-of-0000{3 + change}: record 0 "):
        reader.source(tmp_path, "codes", "train")[0]


def test_a_shard_with_another_number_of_records_is_named(tmp_path):
    write(tmp_path, n=7, per_shard=3)
    paths = sorted((tmp_path / "codes" / "1.0.0").glob("*train*"))
    paths[1].write_bytes(paths[2].read_bytes())  # of one record
    with pytest.raises(kinds.RecordError) as error:
        reader.source(tmp_path, "codes", "train")[3]
    assert f"{paths[1]}: record 0 (number 3 of train)" in str(error.value)
    assert "holds 1 records, not 3" in str(error.value)


def test_metadata_without_splits_is_named(tmp_path):
    write(tmp_path)
    path = tmp_path / "codes" / "1.0.0" / "dataset_info.json"
    for broken in ({}, {"splits": [{"name": "train"}]}, []):
        path.write_text(json.dumps(broken))
        with pytest.raises(kinds.RecordError, match="dataset_info.json lacks the splits"):
            reader.source(tmp_path, "codes", "train")


@pytest.mark.parametrize("name", ["dataset_info.json", "metadata.json"])
def test_broken_metadata_is_named(tmp_path, name):
    write(tmp_path)
    path = tmp_path / "codes" / "1.0.0" / name
    path.write_text(path.read_text()[:-20])
    with pytest.raises(kinds.RecordError, match=f"{name} is not valid JSON.*build it again"):
        reader.source(tmp_path, "codes", "train")


def test_codes_of_another_vqgan_are_refused_with_the_way_out(tmp_path):
    write(tmp_path)
    encoded.check_fingerprint(tmp_path, "codes", "aaaa")
    with pytest.raises(kinds.RecordError) as error:
        encoded.check_fingerprint(tmp_path, "codes", "bbbb")
    for part in ("VQGAN aaaa", "runs/vqgan", "VQGAN bbbb", "python -m swaptalk_jax.encode"):
        assert part in str(error.value)


def test_a_missing_set_split_or_metadata_says_what_to_do(tmp_path):
    with pytest.raises(kinds.RecordError, match=r"python -m data_pipelines\.build"):
        reader.source(tmp_path, "frames", "train")
    with pytest.raises(kinds.RecordError, match="fingerprint"):
        Shards(tmp_path, "codes", {"identities": []})
    write(tmp_path)
    with pytest.raises(kinds.RecordError, match="only train, val"):
        reader.source(tmp_path, "codes", "test")


@pytest.mark.parametrize("size, exact", [(64, True), (160, False)])
def test_images_survive(size, exact):
    y, x = np.mgrid[:size, :size]
    image = np.stack([x * 255 // size, y * 255 // size, (x + y) % 255 // 2], -1).astype(np.uint8)
    again = kinds.decode_image(kinds.encode_image(image))
    error = np.abs(again.astype(int) - image)
    assert error.max() == 0 if exact else error.mean() < 4
    with pytest.raises(kinds.RecordError, match="neither"):
        kinds.decode_image(b"no image")

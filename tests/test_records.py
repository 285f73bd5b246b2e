"""Record kinds: written whole or not at all, read by TFDS alone, corrupt ones named."""

import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds

from data_pipelines import records

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


def write(root, n=5, metadata=CODES, **kwargs):
    with records.Writer(root, "codes", metadata, **kwargs) as writer:
        for i in range(n):
            assert writer.write("train", clip(i)) == i
        writer.write("val", clip(n, frames=9))


def test_what_is_written_is_read(tmp_path):
    write(tmp_path)
    source = records.source(tmp_path, "codes", "train")
    assert len(source) == 5
    for i, record in enumerate(source):
        for name, value in clip(i).items():
            np.testing.assert_array_equal(record[name], value)
    assert source[0]["codes"].dtype == np.uint16 and source[0]["name"] == "ann/0é"
    assert len(records.source(tmp_path, "codes", "val")[0]["codes"]) == 9
    assert records.metadata(tmp_path, "codes") == CODES
    with pytest.raises(IndexError):
        source[5]


def test_shards_split_by_size_and_keep_the_order(tmp_path):
    write(tmp_path, n=7, shard_bytes=300)
    names = sorted(p.name for p in (tmp_path / "codes" / "1.0.0").glob("*train*"))
    assert len(names) > 2
    assert names[0] == f"swaptalk_codes-train.array_record-00000-of-{len(names):05d}"
    source = records.source(tmp_path, "codes", "train")
    assert [int(r["first"]) for r in source] == [6 * i for i in range(7)]


@pytest.mark.parametrize("kind", list(records.REQUIRED))
def test_tfds_reads_every_kind_without_us(tmp_path, kind):
    metadata = CODES | {"size": 8}
    record = {}
    for name, feature in records.features(kind, metadata).items():
        if isinstance(feature, tfds.features.Text):
            record[name] = "text é"
        elif feature.np_dtype == np.object_:
            record[name] = records.encode_image(np.zeros((8, 8, 3), np.uint8))
        else:
            shape = [2 if n is None else n for n in feature.shape]
            record[name] = np.ones(shape, feature.np_dtype)
    with records.Writer(tmp_path, kind, metadata) as writer:
        writer.write("train", record)
    builder = tfds.builder_from_directory(tmp_path / kind / records.VERSION)
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


def test_a_failed_writer_leaves_what_was_there(tmp_path):
    write(tmp_path)
    with pytest.raises(KeyboardInterrupt), records.Writer(tmp_path, "codes", CODES) as writer:
        writer.write("train", clip(0))
        raise KeyboardInterrupt
    assert [p.name for p in tmp_path.iterdir()] == ["codes"]
    assert len(records.source(tmp_path, "codes", "train")) == 5
    write(tmp_path, n=2)  # and a finished one replaces it
    assert len(records.source(tmp_path, "codes", "train")) == 2


@pytest.mark.parametrize(
    "change, line",
    [
        ({"codes": np.zeros((6, 2, 2), np.uint16)}, "codes"),
        ({"codes": np.zeros((6, 4, 2), np.int32)}, "codes"),
        ({"more": 1}, "more"),
    ],
)
def test_a_record_of_another_shape_dtype_or_field_is_refused(tmp_path, change, line):
    with pytest.raises(records.RecordError, match=line):
        with records.Writer(tmp_path, "codes", CODES) as writer:
            writer.write("train", clip(0) | change)
    assert not list(tmp_path.iterdir())


def test_a_corrupt_record_names_its_shard_and_number(tmp_path):
    write(tmp_path, n=7, shard_bytes=300)
    shards = sorted((tmp_path / "codes" / "1.0.0").glob("*train*"))
    first = records.splits(tmp_path, "codes")["train"][0]
    data = bytearray(shards[1].read_bytes())
    at = data.index(np.full(8, first, np.uint16).tobytes())  # codes of that shard's first record
    data[at : at + 4] = b"\xff\xff\xff\xff"
    shards[1].write_bytes(data)
    source = records.source(tmp_path, "codes", "train")
    assert int(source[0]["first"]) == 0
    with pytest.raises(records.RecordError) as error:
        source[first]
    assert f"{shards[1]}: record 0 (number {first} of train)" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("damage", ["truncated", "missing"])
def test_a_truncated_or_missing_shard_is_named(tmp_path, damage):
    write(tmp_path)
    (shard,) = (tmp_path / "codes" / "1.0.0").glob("*train*")
    if damage == "missing":
        shard.unlink()
    else:
        shard.write_bytes(shard.read_bytes()[:2000])
    with pytest.raises(records.RecordError, match=shard.name):
        records.source(tmp_path, "codes", "train")[0]


def test_codes_of_another_vqgan_are_refused_with_the_way_out(tmp_path):
    write(tmp_path)
    records.check_fingerprint(tmp_path, "codes", "aaaa")
    with pytest.raises(records.RecordError) as error:
        records.check_fingerprint(tmp_path, "codes", "bbbb")
    for part in ("VQGAN aaaa", "runs/vqgan", "VQGAN bbbb", "python -m swaptalk_jax.encode"):
        assert part in str(error.value)


def test_a_missing_set_split_or_metadata_says_what_to_do(tmp_path):
    with pytest.raises(records.RecordError, match=r"python -m data_pipelines\.build"):
        records.source(tmp_path, "frames", "train")
    with pytest.raises(records.RecordError, match="fingerprint"):
        records.Writer(tmp_path, "codes", {"identities": []})
    write(tmp_path)
    with pytest.raises(records.RecordError, match="only train, val"):
        records.source(tmp_path, "codes", "test")


@pytest.mark.parametrize("size, exact", [(64, True), (160, False)])
def test_images_survive(size, exact):
    y, x = np.mgrid[:size, :size]
    image = np.stack([x * 255 // size, y * 255 // size, (x + y) % 255 // 2], -1).astype(np.uint8)
    again = records.decode_image(records.encode_image(image))
    error = np.abs(again.astype(int) - image)
    assert error.max() == 0 if exact else error.mean() < 4
    with pytest.raises(records.RecordError, match="neither"):
        records.decode_image(b"no image")

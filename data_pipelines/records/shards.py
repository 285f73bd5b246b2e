"""Writing record sets: shards that appear whole, in any order, and become a set at the end."""

import functools
import hashlib
import json
import os
import pathlib
import shutil
import uuid
from collections.abc import Iterable
from typing import Any

import tensorflow_datasets as tfds
from array_record.python import array_record_module
from tensorflow_datasets.core import naming
from tensorflow_datasets.proto import tf_example_pb2

from data_pipelines import files
from data_pipelines.records.kinds import VERSION, RecordError, check, features, shard_name
from data_pipelines.records.reader import metadata

NOTES = ".notes"  # what is known of each finished shard, until the set is published


class Shards:
    """A set in the making: shards in any order and from any process, then `publish`.

    shards = Shards(root, "codes", metadata)
    shards.write("train", 0, records)
    shards.publish({"train": 1})

    Each shard appears whole below `<root>/.codes-<tag>`, and one that stands there is kept: work
    that was killed goes on where it stopped. The tag names the metadata, so shards of another
    set are never taken for these; two processes may write one shard at once.
    """

    def __init__(self, root: str | os.PathLike, kind: str, known: dict[str, Any]):
        """known: the metadata, JSON-able; must hold what `REQUIRED` names for the kind."""
        self.root, self.kind = pathlib.Path(root), kind
        # Through JSON, so that what a later reader sees is what is checked now.
        text = json.dumps(known, sort_keys=True)
        self.metadata = json.loads(text)
        check(kind, self.metadata)
        self.staging = self.root / f".{kind}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
        self._folder = self.staging / VERSION

    def __reduce__(self) -> tuple[type, tuple]:
        return Shards, (self.root, self.kind, self.metadata)

    @functools.cached_property
    def _features(self) -> Any:
        """Only writers take the time to declare them, not who asks what is finished."""
        return features(self.kind, self.metadata)

    def published(self) -> bool:
        """Whether the set of this kind under the root is this one, whole."""
        try:
            return metadata(self.root, self.kind) == self.metadata
        except RecordError:
            return False

    def finished(self, split: str, shard: int) -> bool:
        """Whether a shard stands, here or in the published set."""
        return self._note(split, shard).exists() or self.published()

    def write(self, split: str, shard: int, records: Iterable[dict[str, Any]]) -> None:
        """Writes a shard, whole or not at all; does nothing, and reads nothing, where it stands.

        Raises:
          RecordError: a field is missing, unknown, or of another shape or dtype than declared.
        """
        if self.finished(split, shard):
            return
        for folder in (self._folder, self.staging / NOTES):
            folder.mkdir(parents=True, exist_ok=True)
        count, size = 0, 0
        with files.replacing(self._folder / f"{split}-{shard}") as part:
            # Grain reads single records: anything but group_size:1 would decode neighbours too.
            options = "group_size:1,uncompressed"
            out = array_record_module.ArrayRecordWriter(str(part), options)
            try:
                for record in records:
                    data = self._serialised(record)
                    out.write(data)
                    count, size = count + 1, size + len(data)
            finally:
                out.close()
        files.replace_text(self._note(split, shard), json.dumps({"records": count, "bytes": size}))

    def _note(self, split: str, shard: int) -> pathlib.Path:
        """The file that says of a shard how many records and bytes it has, written after it."""
        return self.staging / NOTES / f"{split}-{shard}.json"

    def _read_note(self, split: str, shard: int) -> dict[str, int]:
        try:
            return json.loads(self._note(split, shard).read_text())
        except FileNotFoundError:
            raise RecordError(
                f"{self.staging}: shard {shard} of {split} is not finished; run the command again"
            ) from None

    def _serialised(self, record: dict[str, Any]) -> bytes:
        if record.keys() != self._features.keys():
            wrong = sorted(record.keys() ^ self._features.keys())
            raise RecordError(f"a record of {self.kind} misses or adds: {', '.join(wrong)}")
        try:
            data = self._features.serialize_example(record)
        except (ValueError, TypeError) as error:
            line = " ".join(str(error).split())
            raise RecordError(f"a record of {self.kind} is not as declared: {line}") from error
        # The fields are a map, whose order would differ from process to process.
        return tf_example_pb2.Example.FromString(data).SerializeToString(deterministic=True)

    def publish(self, shards: dict[str, int]) -> None:
        """Makes shards 0 ... n - 1 of each split the set of this kind, in place of an older one.

        Empty shards are left out, and so are splits without a record. Does nothing the second time.

        Raises:
          RecordError: a shard is not finished, or there is no record at all.
        """
        if self.published():
            return
        notes = {}
        for split, count in shards.items():
            known = [self._read_note(split, i) for i in range(count)]
            kept = [i for i, note in enumerate(known) if note["records"]]
            if kept:
                notes[split] = [known[i] for i in kept]
            for place, i in enumerate(kept):  # their number is in each name, and known only now
                path = self._folder / f"{split}-{i}"
                final = self._folder / shard_name(self.kind, split, place, len(kept))
                if path.exists():  # else it was renamed before a kill
                    os.replace(path, final)
                if not final.exists():
                    self._note(split, i).unlink()
                    raise RecordError(f"{path}: the shard is gone; run the command again")
            for path in (self._folder / f"{split}-{i}" for i in set(range(count)) - set(kept)):
                path.unlink(missing_ok=True)
        for part in self._folder.glob(".*"):  # of a writer that was killed
            part.unlink()
        if not notes:
            raise RecordError(f"{self.root / self.kind}: no record was written, nothing is kept")
        self._describe(notes)
        final, old = self.root / self.kind, self.root / f".{self.kind}-{uuid.uuid4().hex}"
        if final.exists():
            os.replace(final, old)
        os.replace(self.staging, final)
        shutil.rmtree(final / NOTES, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)

    def _describe(self, notes: dict[str, list[dict[str, int]]]) -> None:
        """Writes the metadata of TFDS beside the shards."""
        template = naming.ShardedFileTemplate(
            data_dir=self._folder,
            dataset_name=f"swaptalk_{self.kind}",
            filetype_suffix="array_record",
        )
        tfds.folder_dataset.write_metadata(
            data_dir=str(self._folder),
            features=self._features,
            split_infos=[
                tfds.core.SplitInfo(
                    name=split,
                    shard_lengths=[note["records"] for note in kept],
                    num_bytes=sum(note["bytes"] for note in kept),
                    filename_template=template,
                )
                for split, kept in notes.items()
            ],
            version=VERSION,
            check_data=False,  # the check would import TensorFlow
            description=f"SwapTalk {self.kind}; data_pipelines/records.py declares the fields.",
            metadata=tfds.core.MetadataDict(self.metadata),
        )

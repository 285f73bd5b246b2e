"""Reading of sets: random access to the records of a split."""

import bisect
import dataclasses
import itertools
import json
import os
import pathlib
from typing import Any

from array_record.python import array_record_data_source, array_record_module

from data_pipelines.records.kinds import VERSION, RecordError, features, is_text, shard_name


@dataclasses.dataclass(frozen=True)
class _Shard:
    """What ArrayRecordDataSource takes in place of a path, to open files only when needed."""

    filename: str
    skip: int
    take: int
    examples_in_shard: int


class Source:
    """Random access to the records of one split; pickles as its path.

    `source[i]` is a dict of numpy arrays; text is `str`, encoded images are `bytes`.
    `nbytes` is the size of all its records.
    """

    def __init__(self, root: str | os.PathLike, kind: str, split: str):
        """Raises RecordError when the set or the split is not there."""
        self.root, self.kind, self.split = pathlib.Path(root), kind, split
        self.metadata = metadata(root, kind)
        self.features = features(kind, self.metadata)
        self._texts = [k for k, f in self.features.items() if is_text(f)]
        lengths = splits(root, kind)
        if split not in lengths:
            raise RecordError(
                f"{self.root / kind}: there is no split {split!r}, only {', '.join(lengths)}"
            )
        self.nbytes = _split_info(root, kind)[split]["bytes"]
        self._ends = list(itertools.accumulate(lengths[split]))
        n = len(lengths[split])
        self._shards = [
            self.root / kind / VERSION / shard_name(kind, split, i, n) for i in range(n)
        ]
        self._lengths = lengths[split]
        self._opened: set[int] = set()  # shards whose number of records was compared
        self._records = array_record_data_source.ArrayRecordDataSource(
            [
                _Shard(str(path), 0, length, length)
                for path, length in zip(self._shards, lengths[split], strict=True)
            ]
        )

    def __reduce__(self) -> tuple[type, tuple]:
        return Source, (self.root, self.kind, self.split)

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Raises RecordError, naming shard and record, when the record cannot be read."""
        index = int(index)
        if not 0 <= index < len(self):
            raise IndexError(f"{self.kind} {self.split} has {len(self)} records, not {index}")
        try:
            self._count(bisect.bisect_right(self._ends, index))
            record = self.features.deserialize_example_np(self._records[index])
        except Exception as error:  # riegeli, protobuf and numpy each raise their own
            raise RecordError(f"{self._place(index)} cannot be read ({_first(error)})") from error
        if record.keys() != self.features.keys():
            raise RecordError(f"{self._place(index)} lacks fields of {self.kind}; build it again")
        for name in self._texts:
            record[name] = record[name].decode()
        return record

    def _count(self, shard: int) -> None:
        """A shard that was replaced would shift every later index without a sign."""
        if shard in self._opened:
            return
        reader = array_record_module.ArrayRecordReader(str(self._shards[shard]))
        count = reader.num_records()
        reader.close()
        if count != self._lengths[shard]:
            raise ValueError(f"the shard holds {count} records, not {self._lengths[shard]}")
        self._opened.add(shard)

    def _place(self, index: int) -> str:
        i = bisect.bisect_right(self._ends, index)
        position = index - (self._ends[i - 1] if i else 0)
        return f"{self._shards[i]}: record {position} (number {index} of {self.split})"


def _first(error: Exception) -> str:
    return str(error).split(";")[0].strip() or type(error).__name__


def source(root: str | os.PathLike, kind: str, split: str) -> Source:
    """Random access to one split: `len`, and `[i]` -> dict of numpy arrays (see `features`).

    Raises:
      RecordError: the set or the split is not there; on access, a record is corrupt.
    """
    return Source(root, kind, split)


def metadata(root: str | os.PathLike, kind: str) -> dict[str, Any]:
    """What the set's writer said of it: `identities`, `size`, `grid`, `fingerprint` ..."""
    return _read_json(root, kind, "metadata.json")


def splits(root: str | os.PathLike, kind: str) -> dict[str, list[int]]:
    """Number of records of each shard of each split, as {"train": [n, ...], ...}."""
    return {name: info["lengths"] for name, info in _split_info(root, kind).items()}


def _split_info(root: str | os.PathLike, kind: str) -> dict[str, dict[str, Any]]:
    info = _read_json(root, kind, "dataset_info.json")  # its integers are strings
    try:
        return {
            s["name"]: {"lengths": [int(n) for n in s["shardLengths"]], "bytes": int(s["numBytes"])}
            for s in info["splits"]
        }
    except (KeyError, TypeError, ValueError) as error:
        path = pathlib.Path(root) / kind / VERSION / "dataset_info.json"
        raise RecordError(f"{path} lacks the splits ({error!r}); build it again") from error


def _read_json(root: str | os.PathLike, kind: str, name: str) -> dict[str, Any]:
    folder = pathlib.Path(root) / kind / VERSION
    try:
        return json.loads((folder / name).read_text())
    except FileNotFoundError:
        how = "swaptalk_jax.encode" if kind in ("codes", "swaps") else "data_pipelines.build"
        raise RecordError(
            f"{folder}: there are no {kind} here; make them with python -m {how} --out={root}"
        ) from None
    except ValueError as error:
        raise RecordError(f"{folder / name} is not valid JSON ({error}); build it again") from error

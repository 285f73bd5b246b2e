"""Small record sets for tests."""

from data_pipelines.records import shards

# Metadata of small sets of codes and swaps.
CODES = {
    "size": 16,
    "identities": ["ann", "bob"],
    "fingerprint": "aaaa",
    "grid": [4, 2],
    "audio": "log_mel",
    "audio_width": 3,
    "embedding": 2,
}


def write(root, kind, metadata, splits, per_shard=None):
    """Writes {split: records} as a set, `per_shard` records in each shard (None: one shard)."""
    made = shards.Shards(root, kind, metadata)
    counts = {}
    for split, records in splits.items():
        step = per_shard or max(1, len(records))
        parts = [records[i : i + step] for i in range(0, len(records), step)]
        for i, part in enumerate(parts):
            made.write(split, i, part)
        counts[split] = len(parts)
    made.publish(counts)


class Writer:
    """Collects records in any order of splits; the set is written at the end of `with`."""

    def __init__(self, root, kind, metadata):
        self._place, self._splits = (root, kind, metadata), {}

    def __enter__(self):
        return self

    def write(self, split, record):
        """Takes a record and returns its index in the split."""
        self._splits.setdefault(split, []).append(record)
        return len(self._splits[split]) - 1

    def __exit__(self, error, *_):
        if error is None:
            write(*self._place, self._splits)

"""What an example of each view is made of: records -> arrays, in training and in evaluation.

A view knows its records, how to draw a random example from one of them (`draw`), and the fixed
examples of the evaluation (`plan`, `fixed`). It holds no state that changes what it gives.

Views of codes can also be `resident`: all their records become a few arrays, which a device may
hold, and examples hold numbers of their rows; `source` tells of which array a field is.
"""

import copy
import functools
import math
from fractions import Fraction

import numpy as np

from data_pipelines.media.tokens import context_tokens
from data_pipelines.rates import FRAME_RATE, TOKENS
from data_pipelines.records import kinds, reader

APART = 3  # a negative of the same clip starts at least so many frames away (paper's expert)
KEEP_BYTES = 256 << 20  # a split of clips up to this size stays decoded in memory


class Images:
    """One frame an example."""

    kind = "frames"

    def __init__(self, config, split):
        self.records = reader.source(config["root"], self.kind, split)
        self.flip = config.get("flip", False)
        self.eval_examples = config.get("eval_examples", 256)

    def __len__(self):
        return len(self.records)

    def check(self, batch_size):
        """Raises RecordError when there are fewer records than a batch."""
        if len(self) < batch_size:
            raise kinds.RecordError(_too_few(self.records, len(self), "records", batch_size))

    def plan(self, seed):
        """(record, seed) of each evaluation example: every k-th record, in mixed order.

        Mixed, so that a single batch shows many people (sample pictures, retrieval in a batch).
        """
        n = min(self.eval_examples, len(self))
        mixed = np.random.default_rng(seed).permutation(n)
        return [(int(i) * len(self) // n, seed) for i in mixed]

    def draw(self, index, rng):
        """One training example."""
        example = self.fixed(index)
        if self.flip and rng.random() < 0.5:
            example["image"] = np.ascontiguousarray(example["image"][:, ::-1])
        return example

    def fixed(self, index, seed=None, number=None):
        """One evaluation example."""
        record = self.records[index]
        return {"image": kinds.decode_image(record["image"]), "identity": record["identity"]}


class Swaps(Images):
    """One encoded triple an example, as it stands in the record."""

    kind = "swaps"

    def __init__(self, config, split):
        super().__init__(config, split)
        self.read = self.records.__getitem__

    def draw(self, index, rng):
        return self.read(index)

    def fixed(self, index, seed=None, number=None):
        return self.read(index)

    def resident(self):
        """({field: all records' values [n ...]}, view whose examples are numbers of records)."""
        rows = [self.records[i] for i in range(len(self))]
        arrays = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
        view = copy.copy(self)
        view.read = functools.partial(dict.fromkeys, list(arrays))
        return arrays, view

    def source(self, field):
        """Name of the array of `resident` that a field's rows are of."""
        return field


class _Clips:
    """Examples that are windows of a clip's codes; all clips are drawn equally often."""

    kind = "codes"

    def __init__(self, config, split, lengths=None):
        """lengths: {array of `resident`: rows of each clip}, of a view whose examples are rows."""
        self.config, self.split, self.lengths = dict(config), split, lengths
        self.records = reader.source(config["root"], self.kind, split)
        # An example takes 5 of a clip's 250 frames, so decoded clips are worth keeping.
        keep = self.records.nbytes <= KEEP_BYTES
        self.read = functools.cache(self.records.__getitem__) if keep else self.records.__getitem__
        self.sound = np.float32
        if lengths:
            self.read, self.sound = _Numbers(lengths), np.int32
        self.window = config.get("window", 5)
        self.context = config.get("context", 5)
        self.eval_examples = config.get("eval_examples", 256)
        self.eval_windows = config.get("eval_windows", 4)

    def __reduce__(self):  # a worker process opens and keeps its own
        return type(self), (self.config, self.split, self.lengths)

    def __len__(self):
        return len(self.records)

    def resident(self):
        """({codes, features: all clips' rows one after the other}, view of numbers of these rows).

        codes uint16 [n h w], features float16 [2n d].
        """
        clips = [self.records[i] for i in range(len(self))]
        parts = {name: [clip[name] for clip in clips] for name in ("codes", "features")}
        lengths = {name: [len(part) for part in own] for name, own in parts.items()}
        arrays = {name: np.concatenate(own) for name, own in parts.items()}
        return arrays, type(self)(self.config, self.split, lengths)

    def source(self, field):
        """Name of the array of `resident` that a field's rows are of; None: it is no row."""
        return {"codes": "codes", "reference": "codes", "audio": "features"}.get(field)

    def check(self, batch_size):
        """Raises RecordError when the clips have fewer windows than a batch."""
        if len(self) >= batch_size:
            return  # each clip holds at least one; larger sets are not read to count
        frames = [len(self.read(i)["codes"]) for i in range(len(self))]
        windows = sum(max(0, n - self.window + 1) for n in frames)
        if windows < batch_size:
            what = f"windows of {self.window} frames"
            raise kinds.RecordError(_too_few(self.records, windows, what, batch_size))

    def plan(self, seed):
        """(clip, seed of its window) of each evaluation example."""
        n = min(self.eval_examples, len(self) * self.eval_windows)
        clips = [i % len(self) if n >= len(self) else i * len(self) // n for i in range(n)]
        return [(clip, (seed, i)) for i, clip in enumerate(clips)]

    def start(self, clip, rng, before=0, after=0):
        """First frame of a random window, so that its tokens, and `before` and `after` more,
        are inside the clip where it is long enough for that."""
        frames, tokens = len(clip["codes"]), len(clip["features"])
        if frames < self.window:
            raise kinds.RecordError(
                f"clip {clip['name']} has {frames} frames, but a window takes {self.window};"
                " leave it out of the build or make data.window smaller"
            )
        first = math.ceil(before / TOKENS)
        last = min(frames - self.window, (tokens - after) // TOKENS - self.window)
        if last < first:
            first, last = 0, frames - self.window
        return int(rng.integers(first, last + 1))


class Pairs(_Clips):
    """A window of codes with its own sound (label 1) or another one's (label 0), half each.

    Half of the negatives are from the same clip, at least 3 frames away, half from other clips.
    """

    def plan(self, seed):
        clips = super().plan(seed)
        return [clips[i // 2] for i in range(len(clips))]  # one window, in sync and out of sync

    def draw(self, index, rng):
        """One training example."""
        return self._example(index, rng, in_sync=rng.random() < 0.5)

    def fixed(self, index, seed, number):
        """One evaluation example; even numbers are in sync."""
        return self._example(index, np.random.default_rng(seed), in_sync=number % 2 == 0)

    def _example(self, index, rng, in_sync):
        clip = self.read(index)
        start = self.start(clip, rng)
        features, first = clip["features"], start
        if not in_sync:
            features, first = self._negative(index, clip, start, rng)
        return {
            "codes": clip["codes"][start : start + self.window],
            "audio": _tokens(features, TOKENS * first, TOKENS * self.window).astype(self.sound),
            "label": np.float32(in_sync),
        }

    def _negative(self, index, clip, start, rng):
        last = min(len(clip["codes"]), len(clip["features"]) // TOKENS) - self.window
        before = min(max(0, start - APART + 1), last + 1)  # how many starts are far enough
        after = max(0, last - start - APART + 1)
        if before + after > 0 and (rng.random() < 0.5 or len(self) == 1):
            i = int(rng.integers(before + after))
            return clip["features"], i if i < before else start + APART + i - before
        if len(self) == 1:
            raise kinds.RecordError(
                f"{clip['name']} is the only clip of {self.records.split} and too short for sound"
                f" {APART} frames away; pairs need more clips or longer ones"
            )
        other = int(rng.integers(len(self) - 1))
        clip = self.read(other + (other >= index))
        return clip["features"], self.start(clip, rng)


class Windows(_Clips):
    """A window of codes, the sound around each of its frames, and a reference frame."""

    def draw(self, index, rng):
        """One training example; the reference is any frame of the clip outside the window."""
        clip, start = self._window(index, rng)
        frames = len(clip["codes"])
        if frames > self.window:
            reference = int(rng.integers(frames - self.window))
            reference += self.window if reference >= start else 0
        else:
            reference = int(rng.integers(frames))
        return self._example(clip, start, reference)

    def fixed(self, index, seed, number=None):
        """One evaluation example; the reference is the clip's first frame."""
        return self._example(*self._window(index, np.random.default_rng(seed)), reference=0)

    def _window(self, index, rng):
        clip = self.read(index)
        # Frame i hears the tokens 2i + 1 - context ... 2i + context.
        around = self.context - 1
        return clip, self.start(clip, rng, before=around, after=around)

    def _example(self, clip, start, reference):
        features = clip["features"]
        sound = (len(features), Fraction(FRAME_RATE), self.window, self.context)
        return {
            "codes": clip["codes"][start : start + self.window],
            "reference": clip["codes"][reference],
            "audio": features[context_tokens(*sound, first=start)].astype(self.sound),
        }


VIEWS = {"images": Images, "pairs": Pairs, "windows": Windows, "swaps": Swaps}


def _tokens(features, first, count):
    """features [n ...] -> [count ...] from token `first` on, edges repeated."""
    return features.take(np.arange(first, first + count), axis=0, mode="clip")


class _Numbers:
    """Clip i as the numbers of its rows among those of all clips."""

    def __init__(self, lengths):
        self.ends = {name: np.cumsum(own) for name, own in lengths.items()}
        self.lengths = lengths

    def __call__(self, i):
        rows = {
            name: np.arange(ends[i] - self.lengths[name][i], ends[i], dtype=np.int32)
            for name, ends in self.ends.items()
        }
        return rows | {"name": f"number {i}"}


def _too_few(source, n, what, batch_size):
    return (
        f"{source.root / source.kind}: split {source.split} has {n} {what}, fewer than a batch of"
        f" {batch_size}; make the batch smaller or build more data"
    )

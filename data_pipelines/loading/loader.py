"""Record shards -> batches; every batch is a pure function of (config, split, view, seed, step).

Each example's randomness comes from its own position in the endless shuffled stream, so batches
do not depend on the number of workers or threads, and a restart at step s is a slice.

Views (h w = the grid of codes, d = width of the audio features, e = of the identity embedding,
t = `window` frames at 25 fps, c = `context` frames of sound around a frame):

| view | from | batch |
|---|---|---|
| images | frames | image uint8 [b s s 3], identity int32 [b] |
| pairs | codes | codes uint16 [b t h w], audio float32 [b 2t d], label float32 [b] (1 in sync) |
| windows | codes | codes uint16 [b t h w], reference uint16 [b h w], audio float32 [b t 2c d] |
| swaps | swaps | source, target, result uint16 [b h w], id_source, id_result float32 [b e], \
source_identity, target_identity int32 [b] |

The data config is a mapping (a ConfigDict or a dict): `root` (folder of the record kinds), and
optionally `extra` (more roots with weights, see roots.py; none), `flip` (False; images: mirror half
of them), `window` (5), `context` (5), `eval_examples` (256, at most) and `eval_windows` (4 of each
clip, at most).
"""

import atexit
import functools
import gc
import signal
import weakref
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import grain
import numpy as np
from absl import flags

from data_pipelines.children import end_with_parent
from data_pipelines.loading import roots, views
from data_pipelines.records import kinds

PREFETCH = 4  # elements are whole batches: Grain's default of 500 would fill the memory
# Readers in each process, else 1. Decoding of images releases the GIL; elsewhere a second reader
# only fights for it (a pair of kept clips takes 54 us of a core with two, 31 with one).
THREADS = {"images": 2}


def dataset(
    data_config: Mapping[str, Any],
    split: str,
    view: Any,
    batch_size: int,
    seed: int,
    step: int = 0,
    rows: Sequence[int] | None = None,
    workers: int = 0,
) -> "Batches":
    """Endless training batches, beginning with the batch of `step`.

    `close()` of the iterator ends its threads and workers; the end of the process does so too.

    Args:
      data_config: see the module's docstring.
      split: "train" or "val".
      view: images | pairs | windows | swaps, or a view that `resident` has made.
      batch_size: global: examples of all hosts together.
      seed: of order and choices, 0 <= seed < 2**32.
      step: the batch to begin with.
      rows: numbers of the global batch's rows that this host holds, sorted; all unless given. A
        number >= `batch_size` is padding: the batch's last example again.
      workers: processes that make the batches; 0 is this process. The batches are the same.

    Raises:
      RecordError: no such set or split, fewer examples than a batch, or later, a corrupt
        record. ValueError: unknown view.
    """
    stream = _stream(data_config, split, view, batch_size, seed)
    rows = range(batch_size) if rows is None else rows
    stream = grain.MapDataset.source(_HostBatches(stream, batch_size, rows))[step:]
    reading = grain.ReadOptions(num_threads=THREADS.get(view, 1), prefetch_buffer_size=PREFETCH)
    batches = stream.to_iter_dataset(reading)
    if workers:
        if not flags.FLAGS.is_parsed():  # Grain's workers read absl flags, even outside app.run
            flags.FLAGS.mark_as_parsed()
        options = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=2)
        batches = batches.mp_prefetch(options, worker_init_fn=_begin_worker)
    return Batches(iter(batches))


def _stream(config, split, view, batch_size, seed):
    """The endless examples of all roots, mixed by their weights in a fixed order."""
    if isinstance(view, str):
        _view(view)
        parts = roots.opened(config, split, view)
    else:
        parts = [(view, 1.0, 0)]
    parts[0][0].check(batch_size)
    streams = []
    for i, (examples, _, offset) in enumerate(parts):
        own = (seed + i * 0x9E3779B1) % 2**32  # roots of one size are not drawn in step
        stream = grain.MapDataset.range(len(examples)).seed(own).repeat()
        stream = stream.map_with_index(_Shuffle(len(examples), own))
        streams.append(stream.random_map(_Draw(examples, offset)))
    if len(streams) == 1:
        return streams[0]
    return grain.MapDataset.mix(streams, [weight for _, weight, _ in parts])


def _begin_worker(index, count):
    """In a worker: signals are for the run to answer, and the run's end is the worker's too."""
    del index, count
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    end_with_parent()


def resident(data_config: Mapping[str, Any], split: str, view: str) -> tuple[dict, Any]:
    """All of a view's data, and the view to give to `dataset` for numbers of their rows.

    Returns ({name: array [n ...]}, view); `view.source(field)` names the array of which a field of
    the batches has the rows, int32 of any shape [b ...]; None: the field holds values as ever.

    Raises:
      RecordError: a view of images, or several roots; else as `dataset`.
    """
    if not hasattr(_view(view), "resident"):
        raise kinds.RecordError(
            f"the view {view} has no resident data: only codes and features are small; leave out"
            " --config.data.resident"
        )
    if data_config.get("extra", ()):
        raise kinds.RecordError(
            "config.data.resident holds one root; leave it out, or config.data.extra"
        )
    return _view(view)(data_config, split).resident()


class Batches(Iterator):
    """Grain's iterator, ended in time: left to the interpreter's end, it prints tracebacks."""

    def __init__(self, iterator):
        self._iterator = iterator
        atexit.register(_close, weakref.ref(self))

    def __next__(self) -> dict[str, np.ndarray]:
        return next(self._iterator)

    def close(self):
        """Ends threads and workers; there are no batches after it."""
        iterator, self._iterator = self._iterator, iter(())
        if hasattr(iterator, "close"):  # not so at the second call
            iterator.close()


def _close(reference):
    batches = reference()
    if batches is not None:
        batches.close()
    gc.collect()  # Grain's iterators are cycles, and their __del__ needs the modules alive


def evaluation(
    data_config: Mapping[str, Any],
    split: str,
    view: str,
    batch_size: int,
    seed: int,
    rows: Sequence[int] | None = None,
) -> Iterator[dict[str, np.ndarray]]:
    """The fixed evaluation set of `root`, once: as `dataset` gives, plus `mask` float32 [b].

    images, swaps: at most `eval_examples` records, evenly spread. windows, pairs: at most
    `eval_windows` seeded windows of each clip; the reference is the clip's first frame (the
    paper's self-driven rule), and pairs come in twos, one window in sync and out of sync.
    The choice does not depend on `batch_size`. The last batch is filled up with copies of the last
    example, whose mask is 0. rows: those of this host, as in `dataset`; padding has the mask 0.

    Raises: as `dataset` does.
    """
    examples = _view(view)(data_config, split)
    rows = np.asarray(range(batch_size) if rows is None else rows)
    return _evaluate(examples, batch_size, seed, rows)


def _evaluate(examples, batch_size, seed, rows):
    plan = examples.plan(seed)
    for begin in range(0, len(plan), batch_size):
        end = min(begin + batch_size, len(plan))
        mask = (begin + rows < end).astype(np.float32)
        numbers = np.minimum(begin + rows, end - 1).tolist()
        yield _stacked(lambda n: examples.fixed(*plan[n], number=n), numbers) | {"mask": mask}


class _HostBatches:
    """The rows of each global batch that one host holds, of an endless stream of examples.

    A source for Grain. Examples that stand in several rows are made once.
    """

    def __init__(self, stream, batch_size, rows):
        self.stream, self.batch_size = stream, batch_size
        self.rows = np.minimum(np.asarray(rows), batch_size - 1).tolist()

    def __len__(self):
        return len(self.stream) // self.batch_size

    def __getitem__(self, step):
        begin = step * self.batch_size
        return _stacked(self.stream.__getitem__, [begin + row for row in self.rows])


def _stacked(example, numbers):
    """{name: array [n ...]} of example(number) for each of the numbers; repeated ones made once."""
    made = {n: example(n) for n in dict.fromkeys(numbers)}
    return {k: np.stack([made[n][k] for n in numbers]) for k in made[numbers[0]]}


def _view(name):
    if name not in views.VIEWS:
        raise ValueError(f"there is no view {name!r}; the views are {', '.join(views.VIEWS)}")
    return views.VIEWS[name]


class _Shuffle(grain.transforms.MapWithIndex):
    """A new order of all records in each epoch.

    Grain's own shuffle permutes 2**16 numbers until one falls among the n wanted: 4 ms an
    example for 12 clips. A permutation costs 8 bytes a record.
    """

    def __init__(self, records, seed):
        self.records, self.seed = records, seed

    def map_with_index(self, index, element):
        epoch, place = divmod(index, self.records)
        return _order(self.records, self.seed, epoch)[place]


@functools.lru_cache(maxsize=4)  # threads read ahead across the end of an epoch
def _order(records, seed, epoch):
    return np.random.default_rng((seed, epoch)).permutation(records)


class _Draw(grain.transforms.RandomMap):
    """Index of a record -> one example, random by the example's place in the stream."""

    def __init__(self, view, offset):
        """offset: added to the numbers of identities, so that no two roots share one."""
        self.view, self.offset = view, offset

    def random_map(self, index, rng):
        example = self.view.draw(int(index), rng)
        if self.offset:
            named = [name for name in roots.IDENTITIES if name in example]
            example |= {name: np.int32(example[name] + self.offset) for name in named}
        return example

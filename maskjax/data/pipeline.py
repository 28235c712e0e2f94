"""Batches of arrays from records, by Grain.

A batch is a pure function of its number: the number gives the epoch and the positions in it, the
seed and the epoch give a permutation, the permutation gives the records. Grain's `MapDataset` is a
sequence of such batches, read ahead by threads, or by worker processes that take turns; neither
changes what comes out. So the position in the data is the step of the training, and nothing else
needs to be saved to continue.

The order is computed here rather than by `MapDataset.shuffle`: there, epoch e of seed s is epoch
e + 1 of seed s - 1, and batches that are split over worker processes or hosts would depend on how.
"""

import concurrent.futures
import dataclasses
import functools
import gc
import sys
import weakref
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, cast

import grain
import numpy as np
from absl import flags

from maskjax.data.inputs import Input
from maskjax.data.records import Records
from maskjax.data.views import read_view
from maskjax.errors import UserError

Batch = dict[str, np.ndarray]

# Tags that keep the random streams of one seed apart.
_ORDER, _AUGMENT = 0, 1


def train_batches(
    records: Records,
    inputs: Mapping[str, Input],
    *,
    batch_size: int,
    seed: int,
    start: int = 0,
    stop: int | None = None,
    workers: int = 0,
    threads: int = 8,
    prefetch: int = 64,
    rows: np.ndarray | None = None,
) -> "BatchIterator":
    """Reads shuffled batches, epoch after epoch.

    Every epoch has a new order and takes every record at most once; the records that do not fill
    a last batch are left out, others in each epoch.

    Args:
      records: what to read.
      inputs: how the values of a record become arrays, by the name that they have there.
      batch_size: B, over all processes.
      seed: decides the order, and the augmentation if it is done on the host.
      start: number of the first batch; batch `s` is the same whatever the start.
      stop: number after the last batch; None: endless.
      workers: processes that decode; 0: this process does.
      threads: reading threads of each process; 0: none.
      prefetch: records read ahead, rounded up to whole batches; 0: none.
      rows: which rows of each batch are read here, ascending; None: all. With several processes,
        those that their devices hold.

    Returns:
      An iterator, to be closed, over dicts of
        one array per input, [B, *shape(train=True)]; zeros where the record could not be read.
        `_has_NAME`: bool [B] for an optional input; whether the record has it.
        `label`: int32 [B] if the records have labels; -1 where the record could not be read.
        `_mask`: bool [B]; False where the record could not be read.
        `_index`: int32 [B]; number of the record.
      With `rows`, only those of each, the same as they are without.

    Raises:
      UserError: fewer records than a batch, or a batch without examples.
    """
    _check_sizes(records, batch_size)
    if len(records) < batch_size:
        raise UserError(
            f"There are {len(records)} records, fewer than a batch of {batch_size}: reduce "
            f"train.batch_size or use more data."
        )
    batches = _Batches(
        _Reader(records, dict(inputs), True, seed),
        _Shuffled(len(records), batch_size, seed),
        np.arange(batch_size) if rows is None else rows,
        start,
        sys.maxsize if stop is None else stop,
        threads,
    )
    return BatchIterator(batches, workers, threads, prefetch)


def eval_batches(
    records: Records,
    inputs: Mapping[str, Input],
    *,
    batch_size: int,
    max_examples: int | None = None,
    workers: int = 0,
    threads: int = 8,
    prefetch: int = 64,
    rows: np.ndarray | None = None,
    views: int = 1,
) -> "BatchIterator":
    """Reads every record once, in order, without augmentation; or several views of each.

    Args:
      records: what to read.
      inputs: how the values of a record become arrays.
      batch_size: B, over all processes.
      max_examples: if there are more records, only so many, spread evenly; None: all.
      workers: processes that decode; 0: this process does.
      threads: reading threads of each process; 0: none.
      prefetch: records read ahead, rounded up to whole batches; 0: none.
      rows: as in `train_batches`.
      views: of each record, `views.view_count`; they follow each other with the same `_index`,
        perhaps over the end of a batch. 1: what `read` gives.

    Returns:
      An iterator as that of `train_batches`. The last batch is filled with zeros: `_mask` False,
      `label` and `_index` -1.

    Raises:
      UserError: there are no records, or a batch has no examples.
    """
    _check_sizes(records, batch_size)
    used = min(max_examples or len(records), len(records))
    order = _InOrder(len(records), used, batch_size, views)
    batches = _Batches(
        _Reader(records, dict(inputs), False, 0, views),
        order,
        np.arange(batch_size) if rows is None else rows,
        0,
        -(-order.used * views // batch_size),
        threads,
    )
    return BatchIterator(batches, workers, threads, prefetch)


class BatchIterator(Iterator[Batch]):
    """Batches in order. Close it, by `close()` or as a context manager, to stop its readers.

    Raises:
      UserError: a worker process was killed.
    """

    def __init__(self, batches: "_Batches", workers: int, threads: int, prefetch: int) -> None:
        self._open = [iter(_dataset(batches, workers, threads, prefetch))] if batches else []
        self._shared = workers > 0
        # Also at the end of the program: later, what Grain needs to stop its processes is gone.
        self._close = weakref.finalize(self, _close, self._open, batches, self._shared)

    def __next__(self) -> Batch:
        if not self._open:
            raise StopIteration
        try:
            batch = next(self._open[0])
        except RuntimeError as error:
            if "Worker process was terminated" not in str(error):
                raise
            raise UserError(
                "A worker process that reads the data was killed, perhaps for lack of memory: "
                "lower data.workers or data.prefetch, and start again to go on from the newest "
                "checkpoint."
            ) from error
        if self._shared:
            # Out of the memory shared with the worker, which would leak if the program ended
            # while somebody holds the batch.
            batch = {key: np.array(value) for key, value in batch.items()}
        return batch

    def __enter__(self) -> "BatchIterator":
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()

    def close(self) -> None:
        """Ends reading threads and processes. There are no more batches afterwards."""
        self._close()


def _close(opened: list[Any], batches: "_Batches", has_workers: bool) -> None:
    if opened:
        opened.pop().close()
        if has_workers:
            # Grain's iterators of processes refer to each other in circles; those that live to
            # the end of the program write errors when they are taken apart.
            gc.collect()
    batches.close()


def _dataset(batches: "_Batches", workers: int, threads: int, prefetch: int) -> Any:
    """Returns the Grain dataset that reads batches ahead."""
    ahead = -(-prefetch // batches.rows)
    if workers:
        ahead = -(-ahead // workers)  # for each worker
    # The threads of `batches` decode. These only start batches: as many as keep the others busy,
    # and one more that can begin while another is finished.
    starters = min(ahead, -(-threads // batches.rows) + 1)
    options = grain.ReadOptions(num_threads=starters, prefetch_buffer_size=ahead)
    dataset = grain.MapDataset.source(cast(Sequence, batches)).to_iter_dataset(options)
    if workers:
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()  # Grain reads its flags, which only `app.run` parses
        dataset = dataset.mp_prefetch(
            grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=max(ahead, 1))
        )
    return dataset


class _Order(Protocol):
    """Which records are in a batch."""

    @property
    def batch_size(self) -> int: ...

    def __call__(self, batch: int, rows: np.ndarray) -> np.ndarray:
        """Returns the record numbers of some rows of a batch, int64 [rows]; -1: padding."""


@dataclasses.dataclass(frozen=True)
class _Shuffled:
    """A permutation of the records for each epoch, cut into batches."""

    records: int
    batch_size: int
    seed: int

    def __call__(self, batch: int, rows: np.ndarray) -> np.ndarray:
        epoch, batch = divmod(batch, self.records // self.batch_size)
        return _permutation(self.records, self.seed, epoch)[batch * self.batch_size + rows]


@functools.lru_cache(maxsize=2)  # batches are read ahead, over the end of an epoch
def _permutation(records: int, seed: int, epoch: int) -> np.ndarray:
    """Returns the order of the records in an epoch, int64 [records]: 8 bytes for each record.

    NumPy keeps the numbers of its bit generators the same for ever, unlike its shuffles.
    """
    numbers = np.random.Philox(_seeds(seed, _ORDER, epoch)).random_raw(records)
    return np.argsort(numbers, kind="stable")


@dataclasses.dataclass(frozen=True)
class _InOrder:
    """`used` of the records, evenly spread and in order; padded to whole batches."""

    records: int
    used: int
    batch_size: int
    views: int

    def __call__(self, batch: int, rows: np.ndarray) -> np.ndarray:
        positions = (batch * self.batch_size + rows) // self.views
        return np.where(positions < self.used, positions * self.records // self.used, -1)


@dataclasses.dataclass(frozen=True)
class _Reader:
    """Reads one record and brings its values to the shapes of a batch."""

    records: Records
    inputs: Mapping[str, Input]
    train: bool
    seed: int
    views: int = 1

    def __call__(self, index: int, position: int) -> tuple[dict[str, np.ndarray], Any] | None:
        """Returns the values and the label of record `index`; None if it cannot be read.

        `position` counts the examples since the start of the training; it decides, with the
        seed, the augmentation: the same for all inputs of an example. In evaluation it decides
        which view is read.
        """
        try:
            record = self.records[index]
            values = {}
            for name, each in self.inputs.items():
                if record.get(name) is not None:
                    values[name] = self._read(each, record[name], position)
                elif not each.optional:
                    raise _lacks(name, record)
        except UserError:
            raise  # a mistake in the configuration, the same for many records
        except Exception:  # decoders raise errors of any kind; one bad file must not end a run
            return None
        return values, record.get("label")

    def _read(self, each: Input, value: Any, position: int) -> np.ndarray:
        if self.train or self.views == 1:
            return each.read(value, self._rng(position))
        return read_view(each, value, position % self.views)

    def _rng(self, position: int) -> np.random.Generator | None:
        if not self.train:
            return None
        return np.random.Generator(np.random.Philox(key=(self._key, position)))

    @functools.cached_property
    def _key(self) -> int:
        return int(_seeds(self.seed, _AUGMENT).generate_state(1, np.uint64)[0])


def _lacks(name: str, record: Mapping[str, Any]) -> UserError:
    given = ", ".join(f"'{key}'" for key in record if key != "label") or "nothing"
    return UserError(
        f"The records have no '{name}', they give {given}: rename the input in data.inputs, choose "
        "other fields of the source, or make the input optional if only some records lack it."
    )


class _Batches:
    """A sequence of batches that can be read in any order, and pickled."""

    def __init__(
        self, reader: _Reader, order: _Order, rows: np.ndarray, start: int, stop: int, threads: int
    ) -> None:
        self._reader = reader
        self._order = order
        self._places = rows  # in the whole batch, of the rows that are read here
        self._start = start
        self._stop = stop
        self._threads = threads
        self.rows = len(rows)

    def __len__(self) -> int:
        return max(0, self._stop - self._start)

    def __getitem__(self, i: int) -> Batch:
        number = self._start + i
        indices = self._order(number, self._places)
        positions = number * self._order.batch_size + self._places
        inputs, train = self._reader.inputs, self._reader.train
        batch = {
            name: np.zeros((self.rows, *each.shape(train)), each.dtype)
            for name, each in inputs.items()
        }
        for name, each in inputs.items():
            if each.optional:
                batch[f"_has_{name}"] = np.zeros(self.rows, bool)
        batch["_mask"] = np.zeros(self.rows, bool)
        batch["_index"] = indices.astype(np.int32)
        if self._reader.records.num_classes is not None:
            batch["label"] = np.full(self.rows, -1, np.int32)

        def read(rows: range) -> None:
            for row in rows:
                example = None
                if indices[row] >= 0:
                    example = self._reader(int(indices[row]), int(positions[row]))
                if example is None:
                    continue
                values, label = example
                for name, value in values.items():
                    batch[name][row] = value
                    if inputs[name].optional:
                        batch[f"_has_{name}"][row] = True
                batch["_mask"][row] = True
                if "label" in batch:
                    batch["label"][row] = label

        if self._pool is None:
            read(range(self.rows))
        else:
            # A few portions for each thread: handing over every record costs more than reading it
            # where records are small.
            size = -(-self.rows // (2 * self._threads))
            portions = (range(self.rows)[i : i + size] for i in range(0, self.rows, size))
            for _ in self._pool.map(read, portions):
                pass
        return batch

    @functools.cached_property
    def _pool(self) -> concurrent.futures.Executor | None:
        if self._threads < 2:
            return None
        return concurrent.futures.ThreadPoolExecutor(self._threads, "maskjax-read")

    def close(self) -> None:
        """Ends the reading threads."""
        if "_pool" in self.__dict__ and self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def __getstate__(self) -> dict[str, Any]:
        # A worker process starts threads of its own.
        return {name: value for name, value in self.__dict__.items() if name != "_pool"}


def _seeds(seed: int, *stream: int) -> np.random.SeedSequence:
    return np.random.SeedSequence([seed, *stream])


def _check_sizes(records: Records, batch_size: int) -> None:
    if batch_size < 1:
        raise UserError(f"The batch size is {batch_size}: it has to be 1 or more.")
    if not len(records):
        raise UserError("The data set has no records: choose another split or source.")

"""One row for each example, out of batches that may hold several views of it."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np


class Rows(NamedTuple):
    """Some rows of features.

    Attributes:
      values: {path: [b, ...]}.
      labels: int [b], or None.
      index: int [b], numbers of the records: rows that follow each other with the same number are
        views of one example. None: every row is an example.
    """

    values: Mapping[str, np.ndarray]
    labels: np.ndarray | None
    index: np.ndarray | None


def collect(batches: Iterable[Rows]) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
    """Puts the rows of batches together; the views of an example are averaged.

    Returns:
      {path: [n, ...]} and labels int32 [n] or None, in the order of the batches; without any rows
      nothing.
    """
    values: dict[str, list[np.ndarray]] = {}
    labels: list[np.ndarray] = []
    for rows in map(_averaged, _whole_examples(batches)):
        for path, value in rows.values.items():
            values.setdefault(path, []).append(value)
        if rows.labels is not None:
            labels.append(rows.labels)
    known = np.concatenate(labels).astype(np.int32) if labels else None
    return {path: _concatenate(parts) for path, parts in values.items()}, known


def _whole_examples(batches: Iterable[Rows]) -> Iterator[Rows]:
    """Yields the same rows, so divided that the views of an example stay together."""
    held: Rows | None = None  # the last example of a batch may go on in the next one
    for rows in batches:
        if held is not None:
            rows = jax.tree.map(lambda *parts: np.concatenate(parts), held, rows)
            held = None
        if rows.index is None:
            yield rows
            continue
        starts = _starts(rows.index)
        if len(starts) > 1:
            yield jax.tree.map(lambda x, stop=starts[-1]: x[:stop], rows)
        if len(starts):
            held = jax.tree.map(lambda x, start=starts[-1]: x[start:], rows)
    if held is not None:
        yield held


def _averaged(rows: Rows) -> Rows:
    if rows.index is None:
        return rows
    starts = _starts(rows.index)
    counts = np.diff(starts, append=len(rows.index))
    if (counts == 1).all():
        return rows

    def mean(value: np.ndarray) -> np.ndarray:
        total = np.add.reduceat(value, starts, axis=0)
        return (total / counts.reshape(-1, *[1] * (value.ndim - 1))).astype(value.dtype)

    values = {path: mean(value) for path, value in rows.values.items()}
    labels = None if rows.labels is None else rows.labels[starts]
    return Rows(values, labels, rows.index[starts])


def _starts(index: np.ndarray) -> Any:
    """Returns where in [b] a number differs from the one before it, int; 0 is the first."""
    if not len(index):
        return np.zeros(0, np.int64)
    return np.concatenate([[0], np.flatnonzero(index[1:] != index[:-1]) + 1])


def _concatenate(parts: list[np.ndarray]) -> np.ndarray:
    """Joins arrays and empties the list: `np.concatenate` would hold all of them twice."""
    whole = np.empty((sum(map(len, parts)), *parts[0].shape[1:]), parts[0].dtype)
    stop = len(whole)
    while parts:
        part = parts.pop()
        whole[stop - len(part) : stop] = part
        stop -= len(part)
    return whole

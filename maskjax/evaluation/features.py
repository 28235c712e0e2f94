"""Frozen features: one vector and one label per example, kept in host memory."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from maskjax.errors import UserError
from maskjax.paths import get_path

Batch = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Features:
    """What an evaluator sees of a data set.

    Attributes:
      values: float32 [n, D].
      labels: int32 [n], class numbers from 0.
    """

    values: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


_NO_EXAMPLE = "There is no readable example to evaluate: check the data split."

Select = Callable[[Any, Any], dict[str, jax.Array]]


def selector(encode: Callable[[Any, Any], Mapping], paths: Sequence[str]) -> Select:
    """Returns a compiled function of the named outputs alone: XLA drops what nobody reads.

    Args:
      encode: (variables, batch) -> nested dict of arrays whose first axis is the batch.
      paths: dotted paths into the output of `encode`, each an array [B, D].

    Returns:
      (variables, batch) -> {path: float32 [B, D]}. Keep it: each one compiles for itself.
    """
    paths = tuple(dict.fromkeys(paths))

    @jax.jit
    def select(variables: Any, batch: Any) -> dict[str, jax.Array]:
        out = encode(variables, batch)
        return {path: _vectors(path, get_path(out, path)) for path in paths}

    return select


def extract(
    select: Select, variables: Any, batches: Iterable[Batch], place: Callable[[Batch], Any]
) -> dict[str, Features]:
    """Encodes every example once. A batch is fetched only after the next one was dispatched.

    Args:
      select: from `selector`.
      variables: the first argument of `select`, on the devices.
      batches: dicts of arrays of one shape, with `label` int32 [B] and `_mask` bool [B]; rows whose
        `_mask` is False (padding, unreadable records) are dropped. Without `_mask`, all are kept.
      place: puts a batch on the mesh. With several processes it returns global arrays, and every
        process gets the features of all.

    Returns:
      {path: Features}, rows in the order of the batches.

    Raises:
      UserError: a path that does not exist or is not [B, D]; no labels; no readable example.
    """

    def dispatched() -> Iterator[tuple[Any, Any, Any]]:
        for batch in batches:
            _require_labels(batch)
            placed = place(batch)
            yield select(variables, placed), placed["label"], _mask(placed)

    values: dict[str, list[np.ndarray]] = {}
    labels: list[np.ndarray] = []
    for out, label, mask in _one_behind(dispatched()):
        keep = _fetch(mask).astype(bool)
        labels.append(_fetch(label)[keep])
        for path, value in out.items():
            values.setdefault(path, []).append(_fetch(value)[keep])
    if not sum(map(len, labels)):
        raise UserError(_NO_EXAMPLE)
    return {path: _concatenate(parts, labels) for path, parts in values.items()}


def pixel_features(batches: Iterable[Batch]) -> Features:
    """Returns the pixels themselves, scaled to [0, 1] and flattened: the baseline of every probe.

    Args:
      batches: as in `extract`, with `image` uint8 [B, H, W, C]; on the host.
    """
    values, labels = [], []
    for batch in batches:
        _require_labels(batch)
        keep = np.asarray(_mask(batch), dtype=bool)
        image = np.asarray(batch["image"])[keep]
        values.append(image.reshape(len(image), -1).astype(np.float32) / np.float32(255))
        labels.append(np.asarray(batch["label"])[keep])
    return _concatenate(values, labels)


def check_pair(train: Features, test: Features) -> None:
    """Checks that two sets of features can be compared.

    Raises:
      UserError: an empty set, different widths, negative labels, or features that are not finite.
    """
    for name, part in (("training", train), ("test", test)):
        if not len(part):
            raise UserError(f"The {name} features are empty: check the name of the data split.")
        if part.values.ndim != 2 or len(part.values) != len(part.labels):
            raise UserError(
                f"The {name} features have shape {part.values.shape} for {len(part)} labels: "
                "give one vector and one label per example."
            )
        if not np.isfinite(part.values).all():
            raise UserError(
                f"The {name} features contain NaN or infinity: the weights have probably diverged, "
                "evaluate an earlier checkpoint."
            )
        if part.labels.min() < 0:
            raise UserError(
                f"The {name} labels contain {part.labels.min()}: classes are counted from 0, and "
                "a split without labels cannot be evaluated."
            )
    if train.values.shape[1] != test.values.shape[1]:
        raise UserError(
            f"The training features have {train.values.shape[1]} values per example and the test "
            f"features {test.values.shape[1]}: extract both from the same path."
        )


def _vectors(path: str, value: jax.Array) -> jax.Array:
    if value.ndim != 2:
        raise UserError(
            f"'{path}' has the shape {tuple(value.shape)}, but a probe needs one vector per "
            "example: choose a pooled one such as encoder.mean."
        )
    return value.astype(jnp.float32)


def _require_labels(batch: Batch) -> None:
    if "label" not in batch:
        raise UserError(
            "The data has no labels, which kNN and the linear probe need: choose a labelled "
            "source, or set data.test_split to None."
        )


def _mask(batch: Any) -> Any:
    return batch["_mask"] if "_mask" in batch else np.ones(len(batch["label"]), dtype=bool)


def _one_behind(items: Iterable) -> Iterator:
    """Yields each item after the next one was made, so that fetching overlaps with computing."""
    iterator = iter(items)
    for previous in iterator:
        for current in iterator:
            yield previous
            previous = current
        yield previous


def _fetch(array: Any) -> np.ndarray:
    if isinstance(array, jax.Array) and not array.is_fully_addressable:
        return np.asarray(multihost_utils.process_allgather(array, tiled=True))
    return np.asarray(array)


def _concatenate(values: list[np.ndarray], labels: list[np.ndarray]) -> Features:
    if not sum(map(len, labels)):
        raise UserError(_NO_EXAMPLE)
    return Features(np.concatenate(values), np.concatenate(labels).astype(np.int32))

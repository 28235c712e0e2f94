"""Frozen features: one vector and one label per example, kept in host memory."""

import abc
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from maskjax.data import Input
from maskjax.errors import UserError
from maskjax.evaluation.examples import Rows, collect
from maskjax.parallel.sharding import fetch
from maskjax.paths import get_path

Batch = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Features:
    """What an evaluator sees of a data set.

    Attributes:
      values: float32 [n, D], or [n, N, D] for tokens; integers [n, H, W, 1] for maps of classes.
      labels: int32 [n], class numbers from 0; None if the data have none.
      mesh: of the devices among which evaluators may divide their work; None: one device. With
        several processes all have the same features and call evaluators together.
    """

    values: np.ndarray
    labels: np.ndarray | None
    mesh: Mesh | None = None

    def __len__(self) -> int:
        return len(self.values)

    def rows(self, chosen: np.ndarray) -> "Features":
        """Returns some examples: bool [n] or their numbers."""
        labels = None if self.labels is None else self.labels[chosen]
        return dataclasses.replace(self, values=self.values[chosen], labels=labels)

    def known_labels(self) -> np.ndarray:
        """Returns the labels.

        Raises:
          UserError: there are none.
        """
        if self.labels is None:
            raise UserError(
                "The data have no labels, which this evaluator needs: choose a labelled source for "
                "eval.source, or evaluate with evaluation.Spread alone."
            )
        return self.labels


class Evaluator(Protocol):
    """Something that a representation is judged by.

    Attributes:
      paths: outputs of `encode` that it reads, each [B, D]; `batch.NAME` is an array of the batch.
      tokens: whether the outputs may be [B, N, D], or maps of classes [B, H, W, 1], as well.
      splits: which it reads out of "train" and "test"; of another it gets no features, and the
        split is not encoded for it.
      needs_labels: whether it reads `Features.labels`.
      baselines: what it can be compared with, out of "raw" and "random".
      raw: {path: input}: whose raw values stand for the path in the baseline; a path that is not
        there stands for those of all inputs.
    """

    paths: tuple[str, ...]
    tokens: bool
    splits: tuple[str, ...]
    needs_labels: bool
    baselines: tuple[str, ...]
    raw: Mapping[str, str]

    def __call__(
        self, train: Mapping[str, Features], test: Mapping[str, Features]
    ) -> dict[str, float]:
        """Returns figures by name, given the features of each path."""
        ...


class OfFeatures:
    """What evaluators of a representation have in common, unless they say otherwise."""

    splits = ("train", "test")
    needs_labels = True
    baselines = ("raw", "random")
    tokens = False
    raw = MappingProxyType({})


@dataclasses.dataclass(frozen=True)
class OfOneFeature(OfFeatures, abc.ABC):
    """What evaluators of a single output share: the field `feature`, with a default, and `score`.

    Attributes:
      feature: path of the output of `encode` that is read.
    """

    feature: str

    @property
    def paths(self) -> tuple[str, ...]:
        """What it reads: `feature`."""
        return (self.feature,)

    def __call__(
        self, train: Mapping[str, Features], test: Mapping[str, Features]
    ) -> dict[str, float]:
        """Returns `score` of the feature."""
        return self.score(train[self.feature], test[self.feature])

    @abc.abstractmethod
    def score(self, train: Features, test: Features) -> dict[str, float]:
        """Returns figures by name."""


_CHOOSE = "A probe needs one vector per example: choose a pooled feature such as encoder.mean."
_NO_EXAMPLE = "There is no readable example to evaluate: check the data split."

Select = Callable[[Any, Any], dict[str, jax.Array]]


def selector(encode: Callable[[Any, Any], Mapping], paths: Sequence[str]) -> Select:
    """Returns a compiled function of the named outputs alone: XLA drops what nobody reads.

    A path may also name an array of the batch: `batch.score`.

    Args:
      encode: (variables, batch) -> nested dict of arrays whose first axis is the batch.
      paths: dotted paths into the output of `encode`, each an array [B, D] or [B, N, D].

    Returns:
      (variables, batch) -> {path: float32, shape as it was; integers for maps of classes
      [B, H, W, 1] in the batch}. Keep it: each one compiles for itself.
    """
    paths = tuple(dict.fromkeys(paths))

    @jax.jit
    def select(variables: Any, batch: Any) -> dict[str, jax.Array]:
        out = {**encode(variables, batch), "batch": batch}
        return {path: _features(path, get_path(out, path)) for path in paths}

    return select


def extract(
    select: Select, variables: Any, batches: Iterable[Batch], place: Callable[[Batch], Any]
) -> dict[str, Features]:
    """Encodes every example once, or every view of it, and averages over the views.

    A batch is fetched only after the next one was dispatched.

    Args:
      select: from `selector`.
      variables: the first argument of `select`, on the devices.
      batches: dicts of arrays of one shape, with `_mask` bool [B] and perhaps `label` int32 [B];
        rows whose `_mask` is False (padding, unreadable records) are dropped. Rows that follow each
        other with the same `_index` are views of one example.
      place: puts a batch on the mesh. With several processes it returns global arrays, and every
        process gets the features of all.

    Returns:
      {path: Features}, rows in the order of the batches.

    Raises:
      UserError: a path that does not exist, or has another shape than these; no readable
        example.
    """

    def dispatched() -> Iterator[tuple[Any, Any, Any, Any]]:
        for batch in batches:
            placed = place(batch)
            flags = (placed.get(name) for name in ("label", "_mask", "_index"))
            yield select(variables, placed), *flags

    def rows() -> Iterator[Rows]:
        for out, label, mask, index in _one_behind(dispatched()):
            size = len(next(iter(out.values())))
            keep = np.ones(size, bool) if mask is None else fetch(mask).astype(bool)
            named = {path: fetch(value)[keep] for path, value in out.items()}
            yield Rows(named, *(None if x is None else fetch(x)[keep] for x in (label, index)))

    return _features_of(rows())


def raw_features(
    batches: Iterable[Batch], inputs: Mapping[str, Input], paths: Mapping[str, str | None]
) -> dict[str, Features]:
    """Returns the data themselves as features: the baseline of every probe.

    Args:
      batches: as in `extract`; on the host.
      inputs: of the system, by name.
      paths: {path: input whose values stand for it}; None: those of all inputs, in a row. A path
        `batch.NAME` stands for itself.

    Returns:
      {path: Features}.
    """

    def rows() -> Iterator[Rows]:
        for batch in batches:
            keep = np.asarray(batch["_mask"], bool)
            if not keep.any():
                continue
            raw = {name: each.raw(np.asarray(batch[name])[keep]) for name, each in inputs.items()}
            values = {}
            for path, name in paths.items():
                if path.startswith("batch."):
                    own = np.asarray(batch[path.removeprefix("batch.")], np.float32)[keep]
                    values[path] = own.reshape(len(own), -1)
                else:
                    parts = raw.values() if name is None else [raw[name]]
                    values[path] = np.concatenate(list(parts), axis=1)
            flags = (batch.get(name) for name in ("label", "_index"))
            yield Rows(values, *(None if x is None else np.asarray(x)[keep] for x in flags))

    return _features_of(rows())


def check_pair(train: Features, test: Features) -> None:
    """Checks that two sets of features can be compared.

    Raises:
      UserError: an empty set, different widths, negative labels, or features that are not finite.
    """
    for name, part in (("training", train), ("test", test)):
        labels = part.known_labels()
        if not len(part):
            raise UserError(f"The {name} features are empty: check the name of the data split.")
        if part.values.ndim not in (2, 3) or len(part.values) != len(labels):
            raise UserError(
                f"The {name} features have shape {part.values.shape} for {len(labels)} "
                "labels: give one vector and one label per example."
            )
        check_finite(part.values, name)
        if labels.min() < 0:
            raise UserError(
                f"The {name} labels contain {labels.min()}: classes are counted from 0, and "
                "a split without labels cannot be evaluated."
            )
    if train.values.shape[1:] != test.values.shape[1:]:
        here, there = ("x".join(map(str, f.values.shape[1:])) for f in (train, test))
        raise UserError(
            f"The training features have {here} values per example and the test features {there}: "
            "extract both from the same path."
        )


def check_finite(values: np.ndarray, name: str) -> None:
    """Raises a UserError if features [n, ...] of a split are not finite."""
    # In pieces: what says which are finite would take a quarter of their size.
    if not all(np.isfinite(values[i : i + 16384]).all() for i in range(0, len(values), 16384)):
        raise UserError(
            f"The {name} features contain NaN or infinity: the weights have probably diverged, "
            "evaluate an earlier checkpoint."
        )


def _features(path: str, value: jax.Array) -> jax.Array:
    if path.startswith("batch.") and value.ndim == 1:
        value = value[:, None]
    if path.startswith("batch.") and value.ndim == 4 and jnp.issubdtype(value.dtype, jnp.integer):
        return value  # a map of classes: numbers, not features
    if value.ndim not in (2, 3):
        raise UserError(f"'{path}' has the shape {tuple(value.shape)}. {_CHOOSE}")
    return value.astype(jnp.float32)


def check_vectors(shapes: Mapping[str, jax.ShapeDtypeStruct], evaluator: Evaluator) -> None:
    """Checks that an evaluator can read the outputs of a `selector`, given their shapes.

    Raises:
      UserError: tokens, for an evaluator of vectors.
    """
    for path in evaluator.paths:
        if shapes[path].ndim != 2 and not evaluator.tokens:
            raise UserError(f"'{path}' has the shape {tuple(shapes[path].shape)}. {_CHOOSE}")


def _one_behind(items: Iterable) -> Iterator:
    """Yields each item after the next one was made, so that fetching overlaps with computing."""
    iterator = iter(items)
    for previous in iterator:
        for current in iterator:
            yield previous
            previous = current
        yield previous


def _features_of(batches: Iterable[Rows]) -> dict[str, Features]:
    values, labels = collect(batches)
    if not values or not len(next(iter(values.values()))):
        raise UserError(_NO_EXAMPLE)
    return {path: Features(value, labels) for path, value in values.items()}

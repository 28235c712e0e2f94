"""Classification by the nearest neighbours of frozen features."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from maskjax.errors import UserError
from maskjax.evaluation.features import Features, OfOneFeature, check_pair


@dataclasses.dataclass(frozen=True)
class KNN(OfOneFeature):
    """Weighted k-nearest-neighbour classifier on cosine similarity.

    Each of the k most similar training examples votes for its class with the weight exp(s / T), s
    its cosine similarity (Wu et al., 2018, arXiv:1805.01978, section 3.4; the protocol of DINO).

    Attributes:
      feature: path of the features in the output of `encode`, [B, D].
      k: number of neighbours; a smaller training set votes with all its examples.
      temperature: T.
    """

    feature: str = "encoder.mean"
    k: int = 20
    temperature: float = 0.07

    def __post_init__(self) -> None:
        if self.k < 1:
            raise UserError(f"KNN needs k of at least 1, not {self.k}.")
        if not self.temperature > 0:
            raise UserError(f"KNN needs a temperature above 0, not {self.temperature}.")

    def score(self, train: Features, test: Features) -> dict[str, float]:
        """Returns {"accuracy": share of the test examples classified correctly, in [0, 1]}."""
        check_pair(train, test)
        predicted = knn_predict(
            train.values,
            train.known_labels(),
            test.values,
            k=self.k,
            temperature=self.temperature,
        )
        return {"accuracy": float(np.mean(predicted == test.labels))}


def knn_predict(
    train_values: np.ndarray,
    train_labels: np.ndarray,
    test_values: np.ndarray,
    *,
    k: int = 20,
    temperature: float = 0.07,
    train_chunk: int = 8192,
    test_chunk: int = 1024,
) -> np.ndarray:
    """Classifies by the weighted vote of the k nearest training examples.

    Training rows pass through the device once, `train_chunk` at a time; the test rows and their k
    best neighbours so far stay there. At most [test_chunk, train_chunk] similarities exist at once.

    Args:
      train_values: float32 [n, D], not necessarily normalised; a zero vector is similar to nothing.
      train_labels: int32 [n], from 0.
      test_values: float32 [m, D].
      k: number of neighbours, at most n are used.
      temperature: of the weights exp(similarity / temperature).
      train_chunk: training rows compared at once.
      test_chunk: test rows compared at once.

    Returns:
      int32 [m]; of classes with equal votes the smallest number.
    """
    n, m = len(train_values), len(test_values)
    k = min(k, n)
    train_chunk, test_chunk = min(train_chunk, n), min(test_chunk, m)
    queries = _unit(_pad(test_values, test_chunk).reshape(-1, test_chunk, test_values.shape[1]))
    best = (
        jnp.full((*queries.shape[:2], k), -jnp.inf, jnp.float32),
        jnp.zeros((*queries.shape[:2], k), jnp.int32),
    )
    for start in range(0, n, train_chunk):
        rows = slice(start, start + train_chunk)
        best = _merge(
            best,
            queries,
            _pad(train_values[rows], train_chunk),
            _pad(train_labels[rows], train_chunk),
            min(train_chunk, n - start),
        )
    votes = _vote(best, temperature, int(np.max(train_labels)) + 1)
    return np.asarray(votes).reshape(-1)[:m]


@partial(jax.jit, donate_argnums=0)
def _merge(
    best: tuple[jax.Array, jax.Array],
    queries: jax.Array,
    values: jax.Array,
    labels: jax.Array,
    count: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Merges one chunk of training rows into the k best similarities and their labels.

    Args:
      best: (similarities [S, b, k], labels [S, b, k]) so far.
      queries: unit vectors [S, b, D].
      values: [c, D], of which the first `count` are real.
      labels: [c].
      count: scalar.
    """
    values = _unit(values)
    k = best[0].shape[-1]
    real = jnp.arange(len(values)) < count

    def merge(arguments: tuple) -> tuple[jax.Array, jax.Array]:
        similarities, names, query = arguments
        new = jnp.matmul(query, values.T, precision="highest")
        new = jnp.where(real[None, :], new, -jnp.inf)
        # The chunk alone first: the merge then sorts 2k instead of copying the whole chunk.
        new, index = lax.top_k(new, min(k, len(values)))
        similarities = jnp.concatenate([similarities, new], axis=-1)
        names = jnp.concatenate([names, labels[index]], axis=-1)
        similarities, index = lax.top_k(similarities, k)
        return similarities, jnp.take_along_axis(names, index, axis=-1)

    return lax.map(merge, (*best, queries))


@partial(jax.jit, static_argnums=2)
def _vote(best: tuple[jax.Array, jax.Array], temperature: float, classes: int) -> jax.Array:
    """Returns the class [S, b] with the largest sum of weights."""

    def vote(arguments: tuple) -> jax.Array:
        similarities, names = arguments
        # A common factor does not change the winner, and keeps small temperatures from overflowing.
        weights = jnp.exp((similarities - similarities[:, :1]) / temperature)
        rows = jnp.arange(len(names))[:, None]
        votes = jnp.zeros((len(names), classes)).at[rows, names].add(weights)
        return jnp.argmax(votes, axis=-1).astype(jnp.int32)

    return lax.map(vote, best)


@jax.jit
def _unit(values: jax.Array) -> jax.Array:
    """Scales the last axis to length 1; zero stays zero. Safe for the whole range of float32."""
    largest = jnp.max(jnp.abs(values), axis=-1, keepdims=True)
    values = values / jnp.where(largest > 0, largest, 1)
    norm = jnp.linalg.norm(values, axis=-1, keepdims=True)
    return values / jnp.where(norm > 0, norm, 1)


def _pad(rows: np.ndarray, multiple: int) -> np.ndarray:
    missing = -len(rows) % multiple
    return np.pad(rows, [(0, missing)] + [(0, 0)] * (rows.ndim - 1))

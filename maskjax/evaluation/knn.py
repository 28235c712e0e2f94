"""Classification by the nearest neighbours of frozen features."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from maskjax.errors import UserError
from maskjax.evaluation.features import Features, OfOneFeature, check_pair
from maskjax.evaluation.neighbours import nearest


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
            mesh=train.mesh,
        )
        return {"accuracy": float(np.mean(predicted == test.labels))}


def knn_predict(
    train_values: np.ndarray,
    train_labels: np.ndarray,
    test_values: np.ndarray,
    *,
    k: int = 20,
    temperature: float = 0.07,
    mesh: Mesh | None = None,
    train_chunk: int = 8192,
    test_chunk: int = 1024,
) -> np.ndarray:
    """Classifies by the weighted vote of the k nearest training examples.

    Args:
      train_values: float32 [n, D], as in `nearest`.
      train_labels: int32 [n], from 0.
      test_values: float32 [m, D].
      k: number of neighbours, at most n are used.
      temperature: of the weights exp(similarity / temperature).
      mesh: whose devices share the search; None: one device.
      train_chunk: training rows compared at once.
      test_chunk: test rows compared at once.

    Returns:
      int32 [m]; of classes with equal votes the smallest number.
    """
    k = min(k, len(train_values))
    similarities, rows = nearest(train_values, test_values, k, mesh, train_chunk, test_chunk)
    classes, size = int(np.max(train_labels)) + 1, min(test_chunk, len(test_values))
    chunks = []
    for start in range(0, len(rows), size):
        chunk = slice(start, start + size)
        missing = (0, size - len(rows[chunk])), (0, 0)  # so that one shape is compiled
        near, names = similarities[chunk], train_labels[rows[chunk]]
        votes = _vote(np.pad(near, missing), np.pad(names, missing), temperature, classes)
        chunks.append(np.asarray(votes)[: len(near)])
    return np.concatenate(chunks)


@partial(jax.jit, static_argnums=3)
def _vote(
    similarities: jax.Array, labels: jax.Array, temperature: float, classes: int
) -> jax.Array:
    """Returns the class [b] with the largest sum of weights, given neighbours [b, k]."""
    # A common factor does not change the winner, and keeps small temperatures from overflowing.
    weights = jnp.exp((similarities - similarities[:, :1]) / temperature)
    rows = jnp.arange(len(labels))[:, None]
    votes = jnp.zeros((len(labels), classes)).at[rows, labels].add(weights)
    return jnp.argmax(votes, axis=-1).astype(jnp.int32)

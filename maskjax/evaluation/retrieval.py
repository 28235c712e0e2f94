"""Finding the other half of a pair: image and text, two sensors."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from maskjax.errors import UserError
from maskjax.evaluation.features import Features, OfFeatures
from maskjax.evaluation.similarity import unit

_RANKS = (1, 5, 10)
_STRENGTHS = 10.0 ** np.arange(-4, 5)  # of the penalty, relative to the mean squared feature


@dataclasses.dataclass(frozen=True)
class Retrieval(OfFeatures):
    """Recall among the test examples: is the right partner one of the k most similar?

    Similarity is the cosine. Methods without a contrastive term do not put two modalities into one
    space; for them (`fit="ridge"`) a linear map from one to the other is fitted first on the pairs
    of the training split, its strength chosen by leave-one-out error.

    A recall at k of n test examples is k / n by chance. Examples of equal similarity stand before
    the right one, so that a collapsed representation finds nothing.

    Attributes:
      query: path of the features that search, [B, D].
      key: path of the features that are found, [B, E].
      fit: "none", or "ridge".
      query_input: input whose raw values stand for the query in the raw baseline; "": all.
      key_input: the same for the key.
    """

    query: str
    key: str
    fit: str = "none"
    query_input: str = ""
    key_input: str = ""

    needs_labels = False

    def __post_init__(self) -> None:
        if self.fit not in ("none", "ridge"):
            raise UserError(f"fit of evaluation.Retrieval is 'none' or 'ridge', not '{self.fit}'.")

    @property
    def paths(self) -> tuple[str, ...]:
        """What it reads: `query` and `key`."""
        return (self.query, self.key)

    @property
    def raw(self) -> dict[str, str]:
        """Whose raw values stand for the paths."""
        named = {self.query: self.query_input, self.key: self.key_input}
        return {path: name for path, name in named.items() if name}

    def __call__(
        self, train: Mapping[str, Features], test: Mapping[str, Features]
    ) -> dict[str, float]:
        """Returns `recall_at_1`, ..._5, ..._10 and, from key to query, `reverse_recall_at_1`, ...

        Without a fit there are no figures if query and key differ in width (raw data of two
        sensors): they cannot be compared.
        """
        forward = [features[self.query].values for features in (train, test)]
        backward = [features[self.key].values for features in (train, test)]
        if self.fit == "none" and forward[1].shape[1] != backward[1].shape[1]:
            return {}
        figures = {}
        for prefix, queries, keys in (
            ("", forward, backward),
            ("reverse_", backward, forward),
        ):
            if self.fit == "ridge":
                found, wanted = fitted(queries[0], keys[0], queries[1], keys[1])
            else:
                found, wanted = queries[1], keys[1]
            rank = ranks(found, wanted)
            figures |= {f"{prefix}recall_at_{k}": float((rank < k).mean()) for k in _RANKS}
        return figures


def ranks(queries: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Returns how many other keys are at least as similar to query i as key i is, int [n].

    Args:
      queries: float [n, D].
      keys: float [n, D].
    """
    queries, keys = (unit(np.asarray(x, np.float64)) for x in (queries, keys))
    similarities = queries @ keys.T
    right = np.diag(similarities)[:, None]
    # Rounding must not decide between keys that are the same.
    return (similarities >= right - 1e-12).sum(axis=1) - 1


def fitted(
    train_x: np.ndarray, train_y: np.ndarray, test_x: np.ndarray, test_y: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Predicts standardised `test_y` from `test_x` by ridge regression.

    Every feature is standardised by the training pairs. The penalty is the one of `_STRENGTHS`
    with the smallest leave-one-out error, which the singular vectors give in closed form.

    Args:
      train_x: float [n, D].
      train_y: float [n, E].
      test_x: float [m, D].
      test_y: float [m, E].

    Returns:
      Prediction and standardised truth, float64 [m, E].
    """
    train_x, test_x = _standardised(train_x, test_x)
    train_y, test_y = _standardised(train_y, test_y)
    n, d = train_x.shape
    if d > n:
        squares, left = np.linalg.eigh(train_x @ train_x.T)
    else:
        squares, right = np.linalg.eigh(train_x.T @ train_x)
        left = train_x @ right / np.sqrt(np.maximum(squares, 1e-12))[None, :]
    squares = np.maximum(squares, 0.0)
    used = squares > 1e-9 * squares.max(initial=0.0)
    squares, left = squares[used], left[:, used]
    projected = left.T @ train_y
    best, weights = np.inf, np.zeros_like(train_y)
    for strength in _STRENGTHS:
        penalty = strength * squares.sum() / max(len(squares), 1)
        shrink = squares / (squares + penalty)
        residual = train_y - (left * shrink[None, :]) @ projected
        leverage = (left**2 * shrink[None, :]).sum(axis=1)
        error = ((residual / np.maximum(1.0 - leverage, 1e-9)[:, None]) ** 2).mean()
        if error < best:
            # In the span of the training examples: X' a, with a = U (s^2 + penalty)^-1 U' Y.
            best, weights = error, (left / (squares + penalty)[None, :]) @ projected
    return (test_x @ train_x.T) @ weights, test_y


def _standardised(train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    train, test = (np.asarray(x, np.float64) for x in (train, test))
    mean, std = train.mean(axis=0), train.std(axis=0)
    std = np.where(std > 1e-8 * max(std.max(initial=0.0), 1e-300), std, np.inf)  # constants: zero
    return (train - mean[None, :]) / std[None, :], (test - mean[None, :]) / std[None, :]

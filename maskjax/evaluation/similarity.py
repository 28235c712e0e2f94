"""Whether similar examples have similar features, as people judge similarity."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from maskjax.evaluation.features import Features, OfFeatures


@dataclasses.dataclass(frozen=True)
class Similarity(OfFeatures):
    """Rank correlation of cosine similarities of pairs with scores (e.g. STS benchmark).

    Attributes:
      first: path of the features of one half of a pair, [B, D].
      second: path of those of the other half.
      score: path of the scores, e.g. of an input `data.Scalar`.
      first_input: input of the first half, whose raw values are the baseline.
      second_input: input of the second half.
      centre: whether the mean of the training features is subtracted first.
    """

    first: str = "encoder.mean"
    second: str = "text2.mean"
    score: str = "batch.score"
    first_input: str = "text"
    second_input: str = "text2"
    centre: bool = False

    needs_labels = False

    @property
    def paths(self) -> tuple[str, ...]:
        """What it reads: both halves and the score."""
        return self.first, self.second, self.score

    @property
    def raw(self) -> Mapping[str, str]:
        """Which inputs stand for the halves."""
        return {self.first: self.first_input, self.second: self.second_input}

    def __call__(
        self, train: Mapping[str, Features], test: Mapping[str, Features]
    ) -> dict[str, float]:
        """Returns {"spearman": rank correlation on the test pairs, in [-1, 1]}."""
        halves = [test[path].values for path in (self.first, self.second)]
        if self.centre:
            both = np.concatenate([train[path].values for path in (self.first, self.second)])
            halves = [half - both.mean(axis=0) for half in halves]
        first, second = map(unit, halves)
        return {"spearman": spearman((first * second).sum(axis=1), test[self.score].values[:, 0])}


def unit(values: np.ndarray) -> np.ndarray:
    """Scales rows [n, D] to length 1; zero stays zero."""
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    return values / np.where(lengths > 0, lengths, 1)


def spearman(x: np.ndarray, y: np.ndarray) -> float:
    """Returns Spearman's rank correlation of two series [n]; equal values share their mean rank.

    It is 0 where one of them is constant.
    """
    ranks = [_ranks(np.asarray(series, np.float64)) for series in (x, y)]
    ranks = [series - series.mean() for series in ranks]
    scale = np.sqrt((ranks[0] ** 2).sum() * (ranks[1] ** 2).sum())
    return float((ranks[0] * ranks[1]).sum() / scale) if scale else 0.0


def _ranks(x: np.ndarray) -> np.ndarray:
    _, inverse, counts = np.unique(x, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse.reshape(-1)]

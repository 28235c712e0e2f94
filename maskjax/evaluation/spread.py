"""Whether a representation has collapsed: figures that need no labels."""

import dataclasses

import numpy as np

from maskjax.evaluation.features import Features, OfOneFeature


@dataclasses.dataclass(frozen=True)
class Spread(OfOneFeature):
    """Effective rank and standard deviation of the test features.

    Attributes:
      feature: path of the features in the output of `encode`, [B, D].
    """

    feature: str = "encoder.mean"

    needs_labels = False

    def score(self, train: Features, test: Features) -> dict[str, float]:
        """Returns `rankme` and `feature_std` of the test features."""
        del train
        return {"rankme": rankme(test.values), "feature_std": feature_std(test.values)}


def rankme(values: np.ndarray, epsilon: float = 1e-7) -> float:
    """Effective rank (RankMe: Garrido et al., 2023, arXiv:2210.02885, equation 1).

    The exponential of the entropy of the singular values, which are divided by their sum.

    Args:
      values: float [n, D]; not centred.
      epsilon: added to each share.

    Returns:
      From 1 (all features on a line) to min(n, D); 0 if all are zero.
    """
    values = np.asarray(values, np.float64)
    # Of the smaller Gram matrix: the squares of the singular values.
    gram = values.T @ values if values.shape[0] >= values.shape[1] else values @ values.T
    singular = np.sqrt(np.clip(np.linalg.eigvalsh(gram), 0.0, None))
    if not singular.sum():
        return 0.0
    shares = singular / singular.sum() + epsilon
    return float(np.exp(-(shares * np.log(shares)).sum()))


def feature_std(values: np.ndarray) -> float:
    """Mean standard deviation of unit-length features, times sqrt(D) (Chen & He, 2021, SimSiam).

    Args:
      values: float [n, D].

    Returns:
      1 if directions are spread evenly, 0 if all features are the same.
    """
    values = np.asarray(values, np.float64)
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    unit = values / np.maximum(lengths, 1e-12)
    return float(unit.std(axis=0).mean() * np.sqrt(values.shape[1]))

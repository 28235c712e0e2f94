"""Examples of several classes: mean average precision, of a classifier and of a linear probe."""

import dataclasses
import warnings
from collections.abc import Mapping

import numpy as np

from maskjax.errors import UserError
from maskjax.evaluation.features import Features, OfFeatures, check_finite
from maskjax.evaluation.linear import moments, standardise
from maskjax.evaluation.validation import check_choice


def mean_average_precision(truth: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    """Returns `map`, the mean over the classes of the area under precision and recall.

    The area is scikit-learn's `average_precision_score`, a sum of steps without interpolation, as
    is usual on AudioSet. Classes without any example have none; they are left out.

    Args:
      truth: bool [n, V].
      scores: float [n, V], higher for what is more probably of a class.

    Returns:
      `map` in [0, 1] and `classes`, how many were judged.

    Raises:
      UserError: no example is of any class.
    """
    from sklearn.metrics import average_precision_score  # takes seconds to import

    known = np.flatnonzero(truth.any(axis=0))
    if not len(known):
        raise UserError("No test example is of any class: check the labels of the test split.")
    areas = [average_precision_score(truth[:, c], scores[:, c]) for c in known]
    return {"map": float(np.mean(areas)), "classes": float(len(known))}


@dataclasses.dataclass(frozen=True)
class MeanAveragePrecision(OfFeatures):
    """Mean average precision of the logits on the test split; nothing is fitted.

    Attributes:
      logits: path of the logits in the output of `encode`, [B, V].
      labels: path of the classes, `batch.NAME` of an input `data.ClassSet`, [B, V].
    """

    logits: str = "head.logits"
    labels: str = "batch.labels"

    splits = ("test",)
    needs_labels = False  # one class of each example
    baselines = ()  # a head that was not trained guesses

    @property
    def paths(self) -> tuple[str, ...]:
        """What it reads: `logits` and `labels`."""
        return (self.logits, self.labels)

    def __call__(
        self, train: Mapping[str, Features], test: Mapping[str, Features]
    ) -> dict[str, float]:
        """Returns what `mean_average_precision` does.

        Raises:
          UserError: logits that are not finite, or of another number of classes; no class.
        """
        del train
        scores, truth = test[self.logits].values, test[self.labels].values > 0
        check_finite(scores, "test")
        if scores.shape != truth.shape:
            raise UserError(
                f"'{self.logits}' tells {scores.shape[1]} classes and '{self.labels}' has "
                f"{truth.shape[1]}: evaluate on the data that the classifier was trained for."
            )
        return mean_average_precision(truth, scores)


@dataclasses.dataclass(frozen=True)
class LabelSetProbe(OfFeatures):
    """Linear probe for examples of several classes: a logistic regression for each class.

    scikit-learn's `LogisticRegression`, one class against all others, on standardised frozen
    features. A class that no training example has, or every one, gets constant scores. One
    regularisation for all classes is chosen by the mean average precision on a
    random share of the training examples, and fitted again to all of them.

    Attributes:
      feature: path of the features in the output of `encode`, [B, D].
      labels: path of the classes, `batch.NAME` of an input `data.ClassSet`, [B, V].
      regularisations: the values of l2 to choose from, in mean cross-entropy + l2 / 2 *
        ||weights||^2.
      validation_share: of the training examples, held out to choose. 0 needs a single
        regularisation.
      max_iterations: of L-BFGS, for each class.
      seed: of the validation split.
    """

    feature: str = "encoder.mean"
    labels: str = "batch.labels"
    regularisations: tuple[float, ...] = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
    validation_share: float = 0.2
    max_iterations: int = 1000
    seed: int = 0

    needs_labels = False  # one class of each example

    def __post_init__(self) -> None:
        if not self.regularisations or min(self.regularisations) <= 0:
            raise UserError(
                f"LabelSetProbe needs regularisations above 0, not {self.regularisations}."
            )
        check_choice(self, "regularisations")

    @property
    def paths(self) -> tuple[str, ...]:
        """What it reads: `feature` and `labels`."""
        return (self.feature, self.labels)

    def __call__(
        self, train: Mapping[str, Features], test: Mapping[str, Features]
    ) -> dict[str, float]:
        """Returns `map` and `classes` on `test`, and the chosen `regularisation`.

        Raises:
          UserError: features that are not finite, or no class in a split.
        """
        (known, wanted), (asked, truth) = (
            (each[self.feature].values, each[self.labels].values > 0) for each in (train, test)
        )
        check_finite(known, "training")
        check_finite(asked, "test")
        if not wanted.any():
            raise UserError("No training example is of any class: check the labels.")
        l2 = self.regularisations[0]
        if len(self.regularisations) > 1:
            order = np.random.default_rng(self.seed).permutation(len(known))
            cut = max(1, round(self.validation_share * len(known)))
            left, fitted = order[:cut], order[cut:]
            # `max` takes the first of equals: the strongest regularisation.
            l2 = max(
                sorted(self.regularisations, reverse=True),
                key=lambda each: self._score(
                    each, known[fitted], wanted[fitted], known[left], wanted[left]
                )["map"],
            )
        return {**self._score(l2, known, wanted, asked, truth), "regularisation": float(l2)}

    def _score(
        self,
        l2: float,
        known: np.ndarray,
        wanted: np.ndarray,
        asked: np.ndarray,
        truth: np.ndarray,
    ) -> dict[str, float]:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression

        mean, std = moments(known)
        known, asked = (standardise(x, mean, std) for x in (known, asked))
        scores = np.zeros(truth.shape)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # validation decides
            for c in np.flatnonzero(wanted.any(axis=0) & ~wanted.all(axis=0)):
                machine = LogisticRegression(
                    C=1.0 / (l2 * len(known)), max_iter=self.max_iterations
                )
                scores[:, c] = machine.fit(known, wanted[:, c]).decision_function(asked)
        return mean_average_precision(truth, scores)

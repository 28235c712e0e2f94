"""Linear support vector machine on frozen features, by scikit-learn."""

import dataclasses
import warnings
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from maskjax.errors import UserError
from maskjax.evaluation.features import Features, check_pair
from maskjax.evaluation.linear import moments, stratified_split


@dataclasses.dataclass(frozen=True)
class LinearSVM:
    """Linear SVM, one class against the rest, as is usual for point clouds.

    The cost C is the one of `costs` with the highest accuracy on held-out training examples (of
    equals the smallest); the machine is then fitted to all of them. Features are standardised with
    mean and deviation of the examples that are fitted.

    Attributes:
      feature: path of the features in the output of `encode`, [B, D].
      costs: values of C to choose from.
      validation_share: of the examples of each class, held out to choose. 0 needs a single cost.
      seed: of the validation split and of the solver.
    """

    feature: str = "encoder.mean"
    costs: tuple[float, ...] = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
    validation_share: float = 0.2
    seed: int = 0

    needs_labels = True
    tokens = False
    raw = MappingProxyType({})

    def __post_init__(self) -> None:
        if not self.costs or min(self.costs) <= 0:
            raise UserError(f"LinearSVM needs costs above 0, not {self.costs}.")
        if not 0 <= self.validation_share < 1:
            raise UserError(
                f"LinearSVM needs a validation_share in [0, 1), not {self.validation_share}."
            )
        if self.validation_share == 0 and len(self.costs) > 1:
            raise UserError(
                "LinearSVM cannot choose among several costs without validation examples: give "
                "one, or a validation_share above 0."
            )

    @property
    def paths(self) -> tuple[str, ...]:
        """What it reads: `feature`."""
        return (self.feature,)

    def __call__(
        self, train: Mapping[str, Features], test: Mapping[str, Features]
    ) -> dict[str, float]:
        """Returns `score` of the feature."""
        return self.score(train[self.feature], test[self.feature])

    def score(self, train: Features, test: Features) -> dict[str, float]:
        """Returns `accuracy` on `test`, in [0, 1], and the chosen `cost`.

        Raises:
          UserError: a single class, nothing to validate on, features that do not fit together, or
            scikit-learn is not installed.
        """
        check_pair(train, test)
        if len(np.unique(train.labels)) < 2:
            raise UserError("LinearSVM needs training examples of at least two classes.")
        cost = self.costs[0]
        if len(self.costs) > 1:
            held_out = stratified_split(train.labels, self.validation_share, self.seed)
            if not held_out.any():
                raise UserError(
                    "Every class has a single training example, so none can be held out: give one "
                    "cost and validation_share = 0."
                )
            fitted, left = _rows(train, ~held_out), _rows(train, held_out)
            # `max` takes the first of equals: the strongest regularisation.
            cost = max(sorted(self.costs), key=lambda c: self._accuracy(c, fitted, left))
        return {"accuracy": self._accuracy(cost, train, test), "cost": float(cost)}

    def _accuracy(self, cost: float, train: Features, test: Features) -> float:
        try:
            from sklearn.exceptions import ConvergenceWarning
            from sklearn.svm import LinearSVC
        except ModuleNotFoundError:
            raise UserError(
                "evaluation.LinearSVM needs scikit-learn, which is not installed: run "
                "`pip install scikit-learn`."
            ) from None
        mean, std = moments(train.values)
        machine = LinearSVC(C=cost, max_iter=5000, random_state=self.seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # large costs; validation decides
            machine.fit((train.values - mean[None, :]) / std[None, :], train.labels)
        predicted = machine.predict((test.values - mean[None, :]) / std[None, :])
        return float(np.mean(predicted == test.labels))


def _rows(features: Features, rows: np.ndarray) -> Features:
    return Features(features.values[rows], features.labels[rows])

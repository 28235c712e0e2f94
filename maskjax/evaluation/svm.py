"""Linear support vector machine on frozen features, by scikit-learn."""

import dataclasses
import warnings

import numpy as np

from maskjax.errors import UserError
from maskjax.evaluation.features import Features, OfOneFeature, check_pair
from maskjax.evaluation.linear import moments, standardise
from maskjax.evaluation.validation import check_choice, hold_out


@dataclasses.dataclass(frozen=True)
class LinearSVM(OfOneFeature):
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

    def __post_init__(self) -> None:
        if not self.costs or min(self.costs) <= 0:
            raise UserError(f"LinearSVM needs costs above 0, not {self.costs}.")
        check_choice(self, "costs")

    def score(self, train: Features, test: Features) -> dict[str, float]:
        """Returns `accuracy` on `test`, in [0, 1], and the chosen `cost`.

        Raises:
          UserError: a single class, nothing to validate on, features that do not fit together, or
            scikit-learn is not installed.
        """
        check_pair(train, test)
        if len(np.unique(train.known_labels())) < 2:
            raise UserError("LinearSVM needs training examples of at least two classes.")
        cost = self.costs[0]
        if len(self.costs) > 1:
            held_out = hold_out(train.known_labels(), self.validation_share, self.seed, "cost")
            fitted, left = train.rows(~held_out), train.rows(held_out)
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
            machine.fit(standardise(train.values, mean, std), train.labels)
        predicted = machine.predict(standardise(test.values, mean, std))
        return float(np.mean(predicted == test.labels))

"""Classification from few labels: a handful of examples per class, or a share of them."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from maskjax.errors import UserError
from maskjax.evaluation.features import (
    Evaluator,
    Features,
    OfFeatures,
    OfOneFeature,
    check_pair,
)
from maskjax.evaluation.validation import stratified_split


@dataclasses.dataclass(frozen=True)
class FewShot(OfOneFeature):
    """Linear classification from k labelled examples per class, in closed form.

    Regularised least squares from features to one target of -1 or 1 per class, as in Dosovitskiy
    et al. (2021, arXiv:2010.11929, section 4.1). Features are standardised by mean and deviation of
    the whole training split, which needs no labels; the regularisation is chosen by leaving out one
    of the labelled examples (closed form), so that the test split decides nothing.

    Attributes:
      feature: path of the features in the output of `encode`, [B, D].
      shots: values of k.
      draws: how often the k examples are drawn; the accuracy is the mean.
      regularisations: penalties of the squared weights, out of which one is chosen in each draw.
      seed: of the draws; those of fewer shots are among those of more.
    """

    feature: str = "encoder.mean"
    shots: tuple[int, ...] = (1, 5, 10)
    draws: int = 5
    regularisations: tuple[float, ...] = (1e-1, 1.0, 1e1, 1e2, 1e3)
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.shots or min(self.shots) < 1 or self.draws < 1:
            raise UserError("FewShot needs shots and draws of at least 1.")
        if not self.regularisations or min(self.regularisations) <= 0:
            raise UserError("FewShot needs regularisations above 0.")

    def score(self, train: Features, test: Features) -> dict[str, float]:
        """Returns {"accuracy_K_shot": mean over the draws, "deviation_K_shot": between them}.

        Raises:
          UserError: a class has fewer training examples than shots.
        """
        from sklearn.linear_model import RidgeClassifierCV  # takes seconds to import
        from sklearn.preprocessing import StandardScaler

        check_pair(train, test)
        labels = train.known_labels()
        classes, counts = np.unique(labels, return_counts=True)
        if counts.min() < max(self.shots):
            raise UserError(
                f"Class {classes[counts.argmin()]} has {counts.min()} training examples, too few "
                f"for {max(self.shots)} shots: give FewShot fewer shots, or raise "
                "eval.max_train_examples."
            )
        scaler = StandardScaler().fit(train.values)
        known, asked = scaler.transform(train.values), scaler.transform(test.values)
        penalties = np.asarray(self.regularisations)
        results: dict[int, list[float]] = {shots: [] for shots in self.shots}
        for draw in range(self.draws):
            order = self._order(labels, draw)
            for shots in self.shots:
                rows = order[:, :shots].reshape(-1)
                model = RidgeClassifierCV(penalties).fit(known[rows], labels[rows])
                results[shots].append(float(np.mean(model.predict(asked) == test.labels)))
        means = {f"accuracy_{k}_shot": float(np.mean(each)) for k, each in results.items()}
        return means | {f"deviation_{k}_shot": float(np.std(each)) for k, each in results.items()}

    def _order(self, labels: np.ndarray, draw: int) -> np.ndarray:
        """Returns rows of `max(shots)` examples of each class, int [classes, shots]."""
        rng = np.random.default_rng((self.seed, draw))
        shots = max(self.shots)
        return np.stack(
            [rng.permutation(np.flatnonzero(labels == c))[:shots] for c in np.unique(labels)]
        )


@dataclasses.dataclass(frozen=True)
class FewLabels(OfFeatures):
    """Another evaluator, of which a share of the training labels is known (1 % or 10 %).

    An evaluator that holds out a tenth of so few examples chooses by a handful, that is by chance:
    give it more, e.g. `LinearProbe(validation_share=0.5)`.

    Attributes:
      evaluator: what is fitted to the examples whose label is known.
      share: of the training examples, stratified by class, at least one of each.
      seed: of the choice.
    """

    evaluator: Evaluator
    share: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise UserError(f"FewLabels needs a share above 0 and below 1, not {self.share}.")

    @property
    def paths(self) -> tuple[str, ...]:
        """Those of the evaluator."""
        return self.evaluator.paths

    @property
    def tokens(self) -> bool:
        """As the evaluator."""
        return self.evaluator.tokens

    @property
    def raw(self) -> Mapping[str, str]:
        """As the evaluator."""
        return self.evaluator.raw

    def __call__(
        self, train: Mapping[str, Features], test: Mapping[str, Features]
    ) -> dict[str, float]:
        """Returns what the evaluator does, given the labelled share of the training examples."""
        labels = next(iter(train.values())).known_labels()
        known = stratified_split(labels, self.share, self.seed)
        labelled = {path: f.rows(known) for path, f in train.items()}
        return self.evaluator(labelled, test)

"""Accuracy of a classifier: how often the logits of the whole network name the right class."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from maskjax.errors import UserError
from maskjax.evaluation.features import Features, OfFeatures


@dataclasses.dataclass(frozen=True)
class Accuracy(OfFeatures):
    """Top-1 and top-5 accuracy of the logits on the test split; nothing is fitted.

    Every readable example counts once, whatever the batch. A class with the same logit as the right
    one stands before it, so that constant logits are not right by accident.

    Attributes:
      logits: path of the logits in the output of `encode`, [B, V].
    """

    logits: str = "head.logits"

    splits = ("test",)
    baselines = ()  # a head that was not trained guesses

    @property
    def paths(self) -> tuple[str, ...]:
        """What it reads: `logits`."""
        return (self.logits,)

    def __call__(
        self, train: Mapping[str, Features], test: Mapping[str, Features]
    ) -> dict[str, float]:
        """Returns `top_1` and, if there are more than five classes, `top_5`, in [0, 1].

        Raises:
          UserError: logits that are not finite, or labels of classes that have none.
        """
        del train
        logits, labels = test[self.logits].values, test[self.logits].labels
        assert labels is not None  # it needs them
        classes = logits.shape[1]
        if not np.isfinite(logits).all():
            raise UserError(
                f"'{self.logits}' contains NaN or infinity: the weights have probably diverged, "
                "evaluate an earlier checkpoint."
            )
        if labels.min() < 0 or labels.max() >= classes:
            raise UserError(
                f"The test labels are {labels.min()} to {labels.max()}, but '{self.logits}' tells "
                f"{classes} classes: evaluate on the data that the classifier was trained for."
            )
        right = logits[np.arange(len(labels)), labels]
        ahead = (logits >= right[:, None]).sum(axis=1) - 1
        ranks = (1, 5) if classes > 5 else (1,)
        return {f"top_{k}": float(np.mean(ahead < k)) for k in ranks}

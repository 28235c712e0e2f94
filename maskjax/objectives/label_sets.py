"""Classification of whole examples that are of several classes, or of none."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import optax

from maskjax.errors import UserError
from maskjax.objectives.term import TermValue
from maskjax.paths import get_path


@dataclasses.dataclass(frozen=True)
class BinaryCrossEntropy:
    """Mean sigmoid cross-entropy: every class is a question of its own, all count the same.

    The mean over the classes and examples, as `BCEWithLogitsLoss` of PyTorch has it. Where examples
    were mixed (`data.Mixing`), the labels of a batch are shares in [0, 1].

    Attributes:
      labels: path of the classes, `batch.NAME` of an input `data.ClassSet`, [B, V].
      logits: path of the predictions, [B, V].
      weight: factor of the term in the objective.
    """

    labels: str = "batch.labels"
    logits: str = "head.logits"
    weight: float = 1.0

    def __call__(self, out: Mapping[str, Any], batch: Mapping[str, Any]) -> TermValue:
        """Sums over real examples (`_mask`, if the batch has it).

        Raises:
          UserError: as many logits as there are classes are needed.
        """
        logits = get_path(out, self.logits).astype(jnp.float32)
        name = self.labels.removeprefix("batch.")
        if name not in batch:
            raise UserError(
                f"'{self.labels}' is no array of the batch: name an input data.ClassSet."
            )
        labels = batch[name].astype(jnp.float32)
        if labels.shape != logits.shape:
            raise UserError(
                f"'{self.labels}' has the shape {labels.shape} and '{self.logits}' {logits.shape}: "
                "set the classes of the input and of the head to the same number."
            )
        errors = optax.sigmoid_binary_cross_entropy(logits, labels).mean(axis=-1)
        real = batch["_mask"].astype(jnp.float32) if "_mask" in batch else jnp.ones(len(errors))
        return TermValue((errors * real).sum(), real.sum())

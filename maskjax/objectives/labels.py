"""Classification of whole examples by the labels of the data."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from maskjax.errors import UserError
from maskjax.objectives.classification import cross_entropy
from maskjax.objectives.term import TermValue
from maskjax.paths import get_path


@dataclasses.dataclass(frozen=True)
class LabelCrossEntropy:
    """Mean cross-entropy of the logits with the labels of the batch.

    Where examples were mixed (`data.Mixing`), the target has two classes: `label` with the weight
    `_share`, `_partner` with what is left to 1. The cross-entropy is linear in the target, so that
    no soft labels [B, V] are needed.

    Logs `accuracy`, in which a mixed example counts for its two labels by their weights.

    Attributes:
      logits: path of the predictions, [B, V].
      smoothing: share of the target that is spread evenly over all classes, in [0, 1).
      weight: factor of the term in the objective.
    """

    logits: str = "head.logits"
    smoothing: float = 0.0
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.smoothing < 1:
            raise UserError(f"smoothing must be in [0, 1), not {self.smoothing}.")

    def __call__(self, out: Mapping[str, Any], batch: Mapping[str, Any]) -> TermValue:
        """Sums over real examples (`_mask`, if the batch has it)."""
        logits = get_path(out, self.logits)
        labels, share = batch["label"], jnp.ones(len(logits))
        real = batch["_mask"].astype(jnp.float32) if "_mask" in batch else share
        targets = [(labels, share)]
        if "_share" in batch:
            targets = [(labels, batch["_share"]), (batch["_partner"], 1.0 - batch["_share"])]
        errors, hits, guesses = 0.0, 0.0, logits.argmax(axis=-1)
        for target, weight in targets:
            errors += weight * cross_entropy(logits, target, self.smoothing)
            hits += weight * (guesses == target)
        count = real.sum()
        accuracy = jax.lax.stop_gradient((hits * real).sum() / jnp.maximum(count, 1.0))
        return TermValue((errors * real).sum(), count, {"accuracy": accuracy})

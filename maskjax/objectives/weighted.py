"""Regression where every predicted token has a weight of its own."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from maskjax.errors import UserError
from maskjax.objectives.distillation import ERRORS, feature_error
from maskjax.objectives.term import TermValue
from maskjax.paths import get_path


@dataclasses.dataclass(frozen=True)
class WeightedRegression:
    """Mean error per token, averaged over the tokens of weight 1 of the whole batch.

    Attributes:
      prediction: path of the prediction, [B, ..., D].
      target: path of the target, likewise; never differentiated.
      weights: path of the weights, [B, ...]: 1, or 0 for tokens that do not count.
      error: "l2", "l1", "smooth_l1" or "cosine", see `feature_error`.
      weight: factor of the term in the objective.
    """

    prediction: str
    target: str
    weights: str
    error: str = "l2"
    weight: float = 1.0

    def __post_init__(self) -> None:
        if self.error not in ERRORS:
            raise UserError(f"error must be one of {', '.join(ERRORS)}, not '{self.error}'.")

    def __call__(self, out: Mapping[str, Any], batch: Mapping[str, Any]) -> TermValue:
        """Sums the error over the tokens of real examples (`_mask`, if the batch has it)."""
        target = jax.lax.stop_gradient(get_path(out, self.target))
        errors = feature_error(get_path(out, self.prediction), target, self.error)
        weights = get_path(out, self.weights).astype(jnp.float32)
        if "_mask" in batch:
            real = batch["_mask"].astype(jnp.float32)
            weights = weights * real.reshape(-1, *(1,) * (weights.ndim - 1))
        return TermValue(total=(errors * weights).sum(), count=weights.sum())

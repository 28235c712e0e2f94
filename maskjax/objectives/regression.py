"""Regression of targets at masked tokens."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from maskjax.errors import UserError
from maskjax.objectives.term import TermValue
from maskjax.paths import get_path

_ERRORS = {
    "l2": lambda difference: difference**2,
    "l1": jnp.abs,
    "smooth_l1": lambda d: jnp.where(jnp.abs(d) < 1, 0.5 * d**2, jnp.abs(d) - 0.5),
}


@dataclasses.dataclass(frozen=True)
class MaskedRegression:
    """Mean error per token, averaged over the masked tokens of the whole batch (MAE's loss).

    Attributes:
      prediction: path of the prediction, [B, N, P].
      target: path of the target, [B, N, P].
      mask: path of the `Mask` whose masked tokens count.
      shown: path of a second `Mask`, whose kept tokens alone have a prediction, if not all do: then
        only tokens that are masked AND shown count (VideoMAE V2: Wang et al., 2023).
      error: "l2", "l1" or "smooth_l1" (with threshold 1).
      weight: factor of the term in the objective.
    """

    prediction: str
    target: str
    mask: str = "masks.image"
    error: str = "l2"
    weight: float = 1.0
    shown: str | None = None

    def __post_init__(self) -> None:
        if self.error not in _ERRORS:
            raise UserError(f"error must be one of {', '.join(_ERRORS)}, not '{self.error}'.")

    def per_token(self, out: Mapping[str, Any]) -> jax.Array:
        """Returns the error of every token, float32 [B, N], visible ones included."""
        target = jax.lax.stop_gradient(get_path(out, self.target))
        difference = get_path(out, self.prediction).astype(jnp.float32) - target
        return _ERRORS[self.error](difference).mean(axis=-1)

    def __call__(self, out: Mapping[str, Any], batch: Mapping[str, Any]) -> TermValue:
        """Sums the error over masked tokens of real examples (`_mask`, if the batch has it)."""
        counted = get_path(out, self.mask).is_masked
        if self.shown is not None:
            counted = counted & ~get_path(out, self.shown).is_masked
        weights = counted.astype(jnp.float32)
        if "_mask" in batch:
            weights = weights * batch["_mask"][:, None].astype(jnp.float32)
        return TermValue(total=(self.per_token(out) * weights).sum(), count=weights.sum())

"""Regression of targets at masked tokens."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from maskjax.errors import UserError
from maskjax.objectives.term import TermValue
from maskjax.paths import get_path
from maskjax.tokens import take_tokens

_ERRORS = {
    "l2": lambda difference: difference**2,
    "l1": jnp.abs,
    "smooth_l1": lambda d: jnp.where(jnp.abs(d) < 1, 0.5 * d**2, jnp.abs(d) - 0.5),
}


@dataclasses.dataclass(frozen=True)
class MaskedRegression:
    """Mean error per token, averaged over the masked tokens of the whole batch (MAE's loss).

    Attributes:
      prediction: path of the prediction, [B, N, P]; or, where masked tokens alone have one,
        [B, M, P] in the order of `Mask.drop`.
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
        """Returns the error of every token that has a prediction, float32 [B, N or M]."""
        prediction = get_path(out, self.prediction)
        target = self._predicted(jax.lax.stop_gradient(get_path(out, self.target)), out)
        difference = prediction.astype(jnp.float32) - target
        return _ERRORS[self.error](difference).mean(axis=-1)

    def __call__(self, out: Mapping[str, Any], batch: Mapping[str, Any]) -> TermValue:
        """Sums the error over masked tokens of real examples (`_mask`, if the batch has it)."""
        counted = get_path(out, self.mask).is_masked
        if self.shown is not None:
            counted = counted & ~get_path(out, self.shown).is_masked
        weights = self._predicted(counted, out).astype(jnp.float32)
        if "_mask" in batch:
            weights = weights * batch["_mask"][:, None].astype(jnp.float32)
        return TermValue(total=(self.per_token(out) * weights).sum(), count=weights.sum())

    def _predicted(self, x: jax.Array, out: Mapping[str, Any]) -> jax.Array:
        """Selects the tokens that have a prediction: [B, N, ...] -> [B, N or M, ...]."""
        tokens = get_path(out, self.prediction).shape[1]
        if tokens == x.shape[1]:
            return x
        masked = get_path(out, self.mask).drop
        if tokens == masked.shape[1]:
            return take_tokens(x, masked)
        raise UserError(
            f"{self.prediction} has {tokens} tokens, but there are {x.shape[1]} targets, of which "
            f"{masked.shape[1]} are masked."
        )

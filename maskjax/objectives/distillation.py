"""Regression of a teacher's features, at masked, visible or all tokens."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp

from maskjax.errors import UserError
from maskjax.masking import Mask
from maskjax.objectives.term import TermValue
from maskjax.paths import get_path
from maskjax.targets.features import NORMALISERS, check_normaliser
from maskjax.tokens import take_tokens

ERRORS = ("l2", "l1", "smooth_l1", "cosine")
PLACES = ("masked", "visible", "all")


def feature_error(
    prediction: jax.Array, target: jax.Array, error: str = "l2", beta: float = 1.0
) -> jax.Array:
    """Returns the error of every token, the mean over its D values: [..., D] -> float32 [...].

    Args:
      prediction: differentiable.
      target: of the same shape.
      error: "l2" squared difference, "l1" absolute difference, "smooth_l1": d^2 / (2 beta) where
        |d| < beta, else |d| - beta / 2; "cosine": 1 minus the cosine of the angle.
      beta: of "smooth_l1".
    """
    prediction, target = prediction.astype(jnp.float32), target.astype(jnp.float32)
    if error == "cosine":
        return 1.0 - (NORMALISERS["l2"](prediction) * NORMALISERS["l2"](target)).sum(axis=-1)
    difference = prediction - target
    if error == "l2":
        return (difference**2).mean(axis=-1)
    size = jnp.abs(difference)
    if error == "smooth_l1":
        size = jnp.where(size < beta, 0.5 / beta * difference**2, size - 0.5 * beta)
    return size.mean(axis=-1)


@dataclasses.dataclass(frozen=True)
class FeatureRegression:
    """Mean error of predicted features, averaged over the chosen tokens of the whole batch.

    Each of the two arrays has N tokens in raster order or the K visible ones in the order of the
    mask, as an encoder has them; with `class_token`, that token comes first.

    Attributes:
      prediction: path of the prediction, [B, N or K, D].
      target: path of the target, likewise.
      mask: path of the `Mask`.
      tokens: which count: "masked", "visible" or "all" (all that both arrays have).
      class_token: whether both arrays begin with a class token; it then counts as well, always.
      error: "l2", "l1", "smooth_l1" or "cosine", see `feature_error`.
      beta: threshold of "smooth_l1".
      normalise: what is done to prediction AND target of each token first, see
        `targets.features.NORMALISERS`. To normalise the target alone is the target's affair.
      weight: factor of the term in the objective.
    """

    prediction: str
    target: str
    mask: str = "masks.image"
    tokens: Literal["masked", "visible", "all"] = "masked"
    class_token: bool = False
    error: Literal["l2", "l1", "smooth_l1", "cosine"] = "l2"
    beta: float = 1.0
    normalise: str | None = None
    weight: float = 1.0

    def __post_init__(self) -> None:
        if self.error not in ERRORS:
            raise UserError(f"error must be one of {', '.join(ERRORS)}, not '{self.error}'.")
        if self.tokens not in PLACES:
            raise UserError(f"tokens must be one of {', '.join(PLACES)}, not '{self.tokens}'.")
        if self.beta <= 0:
            raise UserError(f"beta is {self.beta}: the threshold of smooth_l1 is positive.")
        check_normaliser(self.normalise)

    def per_token(self, out: Mapping[str, Any]) -> tuple[jax.Array, jax.Array]:
        """Returns error and weight (0 or 1) of every token that both arrays have, float32 [B, T].

        Raises:
          UserError: a path that does not exist, or arrays that do not fit each other.
        """
        mask: Mask = get_path(out, self.mask)
        prediction = get_path(out, self.prediction)
        target = jax.lax.stop_gradient(get_path(out, self.target))
        if prediction.ndim != 3 or target.ndim != 3 or prediction.shape[2] != target.shape[2]:
            raise UserError(
                f"'{self.prediction}' has the shape {prediction.shape} and '{self.target}' "
                f"{target.shape}: both need [B, tokens, D] with the same D."
            )
        parts = [self._split(self.prediction, prediction, mask)]
        parts.append(self._split(self.target, target, mask))
        b, k = mask.keep.shape
        n = mask.restore.shape[1]
        # The chosen tokens in an order that both arrays can be brought into.
        shared_order = "raster" if all(t.shape[1] == n for _, t in parts) else "visible"
        if shared_order == "raster":
            weights = {
                "masked": mask.is_masked,
                "visible": ~mask.is_masked,
                "all": jnp.ones((b, n), bool),
            }[self.tokens]
        elif self.tokens == "masked":
            raise UserError(
                f"'{self.prediction}' or '{self.target}' has visible tokens only: set `tokens` of "
                "the term to 'visible', or choose outputs that have the masked ones."
            )
        else:
            parts = [(cls, x if x.shape[1] == k else take_tokens(x, mask.keep)) for cls, x in parts]
            weights = jnp.ones((b, k), bool)
        joined = [jnp.concatenate(part, axis=1) for part in parts]
        if self.class_token:
            weights = jnp.concatenate([jnp.ones((b, 1), bool), weights], axis=1)
        prediction, target = (NORMALISERS[self.normalise](x.astype(jnp.float32)) for x in joined)
        errors = feature_error(prediction, target, self.error, self.beta)
        return errors, weights.astype(jnp.float32)

    def _split(self, path: str, x: jax.Array, mask: Mask) -> tuple[jax.Array, jax.Array]:
        """Cuts off the class token ([B, 0 or 1, D]) and checks the number of the others."""
        cls, x = x[:, : int(self.class_token)], x[:, int(self.class_token) :]
        k, n = mask.keep.shape[1], mask.restore.shape[1]
        if x.shape[1] not in (k, n):
            more = " after the class token" if self.class_token else ""
            raise UserError(
                f"'{path}' has {x.shape[1]} tokens{more}, but there are {n} in all and {k} visible "
                "ones: set `class_token` of the term as the outputs have it."
            )
        return cls, x

    def __call__(self, out: Mapping[str, Any], batch: Mapping[str, Any]) -> TermValue:
        """Sums the error over the chosen tokens of real examples (`_mask`, if the batch has it)."""
        errors, weights = self.per_token(out)
        if "_mask" in batch:
            weights = weights * batch["_mask"][:, None].astype(jnp.float32)
        return TermValue(total=(errors * weights).sum(), count=weights.sum())

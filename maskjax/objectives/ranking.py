"""Predicting one's own error: which patches are hard (HPM: Wang et al., 2023)."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp

from maskjax.errors import UserError
from maskjax.masking import Mask
from maskjax.objectives.distillation import ERRORS, feature_error
from maskjax.objectives.term import TermValue
from maskjax.paths import get_path
from maskjax.tokens import take_tokens

_EPSILON = 1e-6  # added to the probabilities before the logarithm


def pairwise_ranking(scores: jax.Array, errors: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Binary cross-entropy of "i is harder than j", over all ordered pairs of an example.

    HPM's relative loss (section 3.2): the probability is sigmoid(score_i - score_j). Pairs with
    equal errors count for neither side, so neither does a patch with itself.

    Args:
      scores: float [B, M], differentiable.
      errors: float [B, M].

    Returns:
      The sum over the pairs of each example and their number, both float32 [B].
    """
    scores, errors = scores.astype(jnp.float32), errors.astype(jnp.float32)
    harder = errors[:, :, None] > errors[:, None, :]
    easier = errors[:, :, None] < errors[:, None, :]
    probability = jax.nn.sigmoid(scores[:, :, None] - scores[:, None, :])
    loss = jnp.where(harder, -jnp.log(probability + _EPSILON), 0.0)
    loss += jnp.where(easier, -jnp.log(1.0 - probability + _EPSILON), 0.0)
    pairs = (harder | easier).astype(jnp.float32)
    return loss.sum(axis=(1, 2)), pairs.sum(axis=(1, 2))


def standardised_error(scores: jax.Array, errors: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Squared difference of scores and the errors standardised per example: HPM's absolute loss.

    Args:
      scores: float [B, M], differentiable.
      errors: float [B, M]; M > 1, since the variance is the unbiased one.

    Returns:
      The sum over the patches of each example and their number, both float32 [B].
    """
    errors = errors.astype(jnp.float32)
    mean = errors.mean(axis=-1, keepdims=True)
    deviation = jnp.sqrt(errors.var(axis=-1, keepdims=True, ddof=1) + 1e-6)
    loss = (scores.astype(jnp.float32) - (errors - mean) / deviation) ** 2
    return loss.sum(axis=1), jnp.full(loss.shape[:1], loss.shape[1], jnp.float32)


_FORMS = {"relative": pairwise_ranking, "absolute": standardised_error}


@dataclasses.dataclass(frozen=True)
class ErrorPrediction:
    """How well a head foresees the error of the reconstruction at the masked tokens.

    The error itself is not differentiated through. The number of pairs of the relative form
    depends, by ties, on the predictions; with micro-batches its count therefore costs a forward
    pass of its own.

    Attributes:
      scores: path of the predicted errors, [B, N] in raster order.
      prediction: path of the reconstruction, [B, N, P].
      target: path of its target, [B, N, P].
      mask: path of the `Mask` whose masked tokens count.
      form: "relative" ranks pairs of tokens of one example, "absolute" regresses the error.
      error: of the reconstruction, as its own term has it: "l2", "l1", "smooth_l1" or "cosine".
      weight: factor of the term in the objective.
    """

    scores: str
    prediction: str
    target: str
    mask: str = "masks.image"
    form: Literal["relative", "absolute"] = "relative"
    error: Literal["l2", "l1", "smooth_l1", "cosine"] = "l2"
    weight: float = 1.0

    def __post_init__(self) -> None:
        if self.form not in _FORMS:
            raise UserError(f"form must be one of {', '.join(_FORMS)}, not '{self.form}'.")
        if self.error not in ERRORS:
            raise UserError(f"error must be one of {', '.join(ERRORS)}, not '{self.error}'.")

    def __call__(self, out: Mapping[str, Any], batch: Mapping[str, Any]) -> TermValue:
        """Sums over pairs (or tokens) of real examples (`_mask`, if the batch has it).

        Raises:
          UserError: scores that are not one number per token.
        """
        mask: Mask = get_path(out, self.mask)
        scores = get_path(out, self.scores)
        if scores.shape != mask.restore.shape:
            raise UserError(
                f"'{self.scores}' has the shape {scores.shape}, but one score per token is needed, "
                f"{mask.restore.shape}."
            )
        errors = feature_error(
            get_path(out, self.prediction), get_path(out, self.target), self.error
        )
        scores, errors = (
            take_tokens(x, mask.drop) for x in (scores, jax.lax.stop_gradient(errors))
        )
        totals, counts = _FORMS[self.form](scores, errors)
        if "_mask" in batch:
            real = batch["_mask"].astype(jnp.float32)
            totals, counts = totals * real, counts * real
        return TermValue(total=totals.sum(), count=jax.lax.stop_gradient(counts.sum()))

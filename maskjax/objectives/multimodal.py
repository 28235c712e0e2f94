"""Terms of modalities: means per example, padding, absent modalities, learned weights."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from maskjax.errors import UserError
from maskjax.objectives.regression import _ERRORS
from maskjax.objectives.term import TermValue
from maskjax.paths import get_path

_EMPTY = ("skip", "zero")


def mean_per_example(
    errors: jax.Array, weights: jax.Array, real: jax.Array, empty: str = "skip"
) -> tuple[jax.Array, jax.Array]:
    """Averages over the tokens of an example, then adds up the examples.

    Args:
      errors: float32 [B, N].
      weights: float32 [B, N], 1 where a token counts.
      real: float32 [B], 0 for examples that do not count at all.
      empty: examples without any token that counts are left out ("skip") or count as a mean of
        zero ("zero").

    Returns:
      Sum of the means and number of examples, float32 [].
    """
    tokens = weights.sum(axis=1)
    # Never 0 / 0, whose gradient would be NaN also where the result is not used.
    means = (errors * weights).sum(axis=1) / jnp.maximum(tokens, 1.0)
    if empty == "skip":
        real = real * (tokens > 0)
    return (means * real).sum(), real.sum()


def weigh_by_uncertainty(value: TermValue, log_variance: jax.Array) -> TermValue:
    """Returns the term exp(-s) L + s with a learned s (Kendall et al., 2018, as in MultiMAE).

    s is added only where there is a loss: a term without examples, or of exactly zero, stays zero.
    """
    used = jax.lax.stop_gradient(value.total) != 0
    total = jnp.exp(-log_variance) * value.total + log_variance * value.count
    return dataclasses.replace(value, total=jnp.where(used, total, 0.0))


@dataclasses.dataclass(frozen=True, kw_only=True)
class _PerExample:
    """What the terms of modalities have in common.

    Attributes:
      mask: path of the mask whose masked tokens count; None: all tokens count.
      valid: path of bool [B, N], False where a token is padding or the example lacks the
        modality; None: all are valid.
      empty: see `mean_per_example`.
      log_variance: path of a learned float32 [], see `weigh_by_uncertainty`; None: no such weight.
      weight: factor of the term in the objective.
    """

    mask: str | None = None
    valid: str | None = None
    empty: str = "skip"
    log_variance: str | None = None
    weight: float = 1.0

    def __post_init__(self) -> None:
        if self.empty not in _EMPTY:
            raise UserError(f"empty must be one of {', '.join(_EMPTY)}, not '{self.empty}'.")

    def weights(self, out: Mapping[str, Any], shape: tuple[int, ...]) -> jax.Array:
        """Returns float32 [B, N], 1 for the tokens that count."""
        weights = jnp.ones(shape, bool)
        if self.mask is not None:
            weights &= get_path(out, self.mask).is_masked
        if self.valid is not None:
            weights &= get_path(out, self.valid)
        return weights.astype(jnp.float32)

    def value(self, out: Mapping[str, Any], batch: Mapping[str, Any], errors: jax.Array) -> Any:
        """Returns the TermValue of errors float32 [B, N]."""
        real = batch.get("_mask")
        real = jnp.ones(len(errors)) if real is None else real.astype(jnp.float32)
        total, count = mean_per_example(errors, self.weights(out, errors.shape), real, self.empty)
        value = TermValue(total=total, count=count)
        if self.log_variance is None:
            return value
        return weigh_by_uncertainty(value, get_path(out, self.log_variance))


@dataclasses.dataclass(frozen=True, kw_only=True)
class RegressionPerExample(_PerExample):
    """Mean error of the masked tokens of an example, averaged over the examples.

    Where the number of masked tokens varies, this is another mean than `MaskedRegression`'s, which
    weighs all masked tokens of the batch alike. MultiMAE and M3AE use this one.

    Attributes:
      prediction: path, [B, N, P].
      target: path, [B, N, P].
      error: "l2", "l1" or "smooth_l1" (with threshold 1).
      mask, valid, empty, log_variance, weight: which tokens and examples count, and how much.
    """

    prediction: str
    target: str
    error: str = "l2"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.error not in _ERRORS:
            raise UserError(f"error must be one of {', '.join(_ERRORS)}, not '{self.error}'.")

    def __call__(self, out: Mapping[str, Any], batch: Mapping[str, Any]) -> TermValue:
        """Sums over the examples that have a masked token."""
        target = jax.lax.stop_gradient(get_path(out, self.target))
        difference = get_path(out, self.prediction).astype(jnp.float32) - target
        return self.value(out, batch, _ERRORS[self.error](difference).mean(axis=-1))


@dataclasses.dataclass(frozen=True, kw_only=True)
class CrossEntropyPerExample(_PerExample):
    """Cross-entropy of the masked tokens of an example, averaged over the examples.

    Attributes:
      prediction: path of the logits, [B, N, V], or [B, N, P V] for tokens of P numbers each.
      target: path of the numbers, int [B, N] or [B, N, P].
      mask, valid, empty, log_variance, weight: which tokens and examples count, and how much.
    """

    prediction: str
    target: str

    def __call__(self, out: Mapping[str, Any], batch: Mapping[str, Any]) -> TermValue:
        """Sums over the examples that have a masked token; also the share guessed `right`."""
        target = get_path(out, self.target)
        target = target[..., None] if target.ndim == 2 else target
        logits = get_path(out, self.prediction).astype(jnp.float32)
        logits = logits.reshape(*target.shape, -1)
        log_p = jax.nn.log_softmax(logits, axis=-1)
        errors = -jnp.take_along_axis(log_p, target[..., None], axis=-1)[..., 0].mean(axis=-1)
        value = self.value(out, batch, errors)
        weights = self.weights(out, errors.shape)
        right = (logits.argmax(axis=-1) == target).mean(axis=-1)
        share = (right * weights).sum() / jnp.maximum(weights.sum(), 1.0)
        return value.replace(metrics={"right": jax.lax.stop_gradient(share)})

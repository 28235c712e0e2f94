"""Prediction of discrete codes: visual tokens (BEiT), words, units of speech."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from maskjax.errors import UserError
from maskjax.objectives.term import TermValue
from maskjax.paths import get_path


def cross_entropy(logits: jax.Array, labels: jax.Array, smoothing: float = 0.0) -> jax.Array:
    """Returns -log softmax(logits)[label], float32 [...].

    Args:
      logits: [..., V].
      labels: int [...]; those outside of 0..V-1 are read as the nearest, so weight them with zero.
      smoothing: share of the target that is spread evenly over all V classes.
    """
    logits = logits.astype(jnp.float32)
    labels = jnp.clip(labels, 0, logits.shape[-1] - 1).astype(jnp.int32)
    norm = jax.nn.logsumexp(logits, axis=-1)
    chosen = jnp.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
    if smoothing == 0:
        return norm - chosen
    return norm - (1 - smoothing) * chosen - smoothing * logits.mean(axis=-1)


@dataclasses.dataclass(frozen=True)
class MaskedCrossEntropy:
    """Mean cross-entropy over the masked tokens of the whole batch (BEiT: Bao et al., 2022).

    Logs `accuracy`, the share of them whose largest logit is the target's.

    Attributes:
      logits: path of the predictions, [B, N, V].
      target: path of the codes, int [B, N], in the outputs of the system or, as "batch.NAME", in
        the batch.
      mask: path of a `Mask`, whose masked tokens count, or of bool [B, N], where True counts;
        None: every token counts.
      ignore: a code that never counts, e.g. that of padding; None: every code counts.
      smoothing: label smoothing, in [0, 1).
      weight: factor of the term in the objective.
    """

    logits: str
    target: str
    mask: str | None = "masks.image"
    ignore: int | None = None
    smoothing: float = 0.0
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.smoothing < 1:
            raise UserError(f"smoothing must be in [0, 1), not {self.smoothing}.")

    def __call__(self, out: Mapping[str, Any], batch: Mapping[str, Any]) -> TermValue:
        """Sums over counted tokens of real examples (`_mask`, if the batch has it)."""
        logits = get_path(out, self.logits)
        name = self.target.removeprefix("batch.")
        target = batch[name] if self.target.startswith("batch.") else get_path(out, self.target)
        weights = self._weights(out, batch, target)
        errors = cross_entropy(logits, jax.lax.stop_gradient(target), self.smoothing)
        hits = (logits.argmax(axis=-1) == target).astype(jnp.float32)
        count = weights.sum()
        accuracy = (hits * weights).sum() / jnp.maximum(count, 1.0)
        return TermValue((errors * weights).sum(), count, {"accuracy": accuracy})

    def _weights(self, out: Any, batch: Any, target: jax.Array) -> jax.Array:
        """Returns which tokens count, float32 [B, N]."""
        counted = jnp.ones(target.shape, bool)
        if self.mask is not None:
            mask = get_path(out, self.mask)
            counted = getattr(mask, "is_masked", mask)
        if self.ignore is not None:
            counted = counted & (target != self.ignore)
        weights = counted.astype(jnp.float32)
        if "_mask" in batch:
            weights = weights * batch["_mask"][:, None].astype(jnp.float32)
        return weights

"""Predicting which words a text has, whatever their places."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from maskjax.objectives.term import TermValue
from maskjax.paths import get_path


def bag_of_words(ids: jax.Array, valid: jax.Array, vocabulary: int) -> jax.Array:
    """Returns the target of DupMAE's second decoding task, float32 [B, V].

    Every distinct id of a text weighs 1 / n, n the number of its tokens; a repeated one weighs no
    more, so that the weights of a text sum to at most 1.

    Args:
      ids: int [B, L].
      valid: bool [B, L], which tokens belong to the bag: not padding, nor special ones.
      vocabulary: V.
    """
    rows = jnp.arange(ids.shape[0])[:, None]
    present = jnp.zeros((ids.shape[0], vocabulary), bool).at[rows, ids].max(valid)
    return present / jnp.maximum(valid.sum(axis=1), 1)[:, None].astype(jnp.float32)


@dataclasses.dataclass(frozen=True)
class BagOfWords:
    """Cross-entropy of a bag of words, averaged over texts (DupMAE: Liu et al., 2023).

    Attributes:
      logits: path of the logits of each text, float [B, V].
      bag: path of the weights of the ids, float [B, V], see `bag_of_words`.
      weight: factor of the term in the objective.
    """

    logits: str = "encoder.bag"
    bag: str = "targets.bag"
    weight: float = 1.0

    def __call__(self, out: Mapping[str, Any], batch: Mapping[str, Any]) -> TermValue:
        """Sums the cross-entropy over real examples."""
        bag = jax.lax.stop_gradient(get_path(out, self.bag))
        errors = -(bag * jax.nn.log_softmax(get_path(out, self.logits), axis=-1)).sum(axis=-1)
        weights = jnp.ones_like(errors)
        if "_mask" in batch:
            weights = batch["_mask"].astype(jnp.float32)
        return TermValue(total=(errors * weights).sum(), count=weights.sum())

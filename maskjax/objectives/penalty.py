"""Keeping outputs small."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from maskjax.objectives.term import TermValue
from maskjax.paths import get_path


@dataclasses.dataclass(frozen=True)
class MeanSquare:
    """Mean square of an output, e.g. of HuBERT's convolutional features, with weight 10.

    Attributes:
      source: path of the output, [B, ...].
      weight: factor of the term in the objective.
    """

    source: str
    weight: float = 1.0

    def __call__(self, out: Mapping[str, Any], batch: Mapping[str, Any]) -> TermValue:
        """Averages over the values of real examples (`_mask`, if the batch has it)."""
        x = get_path(out, self.source).astype(jnp.float32)
        each = (x**2).reshape(x.shape[0], -1).mean(axis=-1)
        weights = jnp.ones(x.shape[0])
        if "_mask" in batch:
            weights = batch["_mask"].astype(jnp.float32)
        return TermValue((each * weights).sum(), weights.sum())

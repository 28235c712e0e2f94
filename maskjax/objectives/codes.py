"""How many of its codes a codebook uses."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from maskjax.objectives.term import TermValue
from maskjax.paths import get_path


@dataclasses.dataclass(frozen=True)
class CodePerplexity:
    """exp of the entropy of the codes of a batch: V if all are used equally. A monitor only.

    Attributes:
      codes: path of the codes, int [B, N].
      size: V.
      weight: factor of the term in the objective; it has no gradient.
    """

    codes: str = "codes"
    size: int = 1024
    weight: float = 0.0

    def __call__(self, out: Mapping[str, Any], batch: Mapping[str, Any]) -> TermValue:
        """Counts the codes of real examples (`_mask`, if the batch has it)."""
        codes = get_path(out, self.codes)
        weights = jnp.ones(codes.shape, jnp.float32)
        if "_mask" in batch:
            weights = weights * batch["_mask"][:, None].astype(jnp.float32)
        counts = jnp.zeros((self.size,)).at[codes].add(weights)
        share = counts / jnp.maximum(counts.sum(), 1.0)
        entropy = -(share * jnp.log(jnp.maximum(share, 1e-12))).sum()
        return TermValue(jnp.exp(entropy), jnp.ones(()), {"used": (counts > 0).mean()})

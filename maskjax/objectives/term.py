"""What every term of an objective is."""

from collections.abc import Mapping
from typing import Any, Protocol

import flax.struct
import jax


@flax.struct.dataclass
class TermValue:
    """A mean that is not divided yet, so that it can be summed over micro-batches.

    Attributes:
      total: float32 [], the weighted sum of errors; differentiable.
      count: float32 [], the number of things summed (e.g. masked patches of real examples). It
        depends on batch and masks only, never on parameters.
      metrics: further scalars to log, by name.
    """

    total: jax.Array
    count: jax.Array
    metrics: dict[str, jax.Array] = flax.struct.field(default_factory=dict)


class Term(Protocol):
    """One piece of the objective; its value is total / count over the global batch."""

    weight: float

    def __call__(self, out: Mapping[str, Any], batch: Mapping[str, Any]) -> TermValue:
        """Computes the piece from the outputs of a system, named by path, and the batch."""
        ...

"""The Chamfer distance between predicted and true sets of points."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from maskjax.errors import UserError
from maskjax.objectives.term import TermValue
from maskjax.paths import get_path
from maskjax.tokens.points import squared_distances


def chamfer_distances(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the squared distance of each point to the nearest of the other set.

    Args:
      a: float [..., S, 3].
      b: float [..., T, 3].

    Returns:
      float32 [..., S] from a to b and [..., T] from b to a.
    """
    distances = squared_distances(a.astype(jnp.float32), b.astype(jnp.float32))
    return distances.min(axis=-1), distances.min(axis=-2)


@dataclasses.dataclass(frozen=True)
class Chamfer:
    """Mean distance to the nearest point, in both directions (Point-MAE: Pang et al., 2022, eq. 4).

    Attributes:
      prediction: path of the predicted sets, [B, M, S, 3].
      target: path of the true sets, [B, M, T, 3].
      norm: "l2": squared distances, the two directions added; "l1": distances, the two directions
        averaged, as the reference's `ChamferDistanceL1`.
      weight: factor of the term in the objective.
    """

    prediction: str = "decoder.prediction"
    target: str = "targets.points"
    norm: str = "l2"
    weight: float = 1.0

    def __post_init__(self) -> None:
        if self.norm not in ("l2", "l1"):
            raise UserError(f"The norm of the Chamfer distance is l2 or l1, not '{self.norm}'.")

    def per_set(self, out: Mapping[str, Any]) -> jax.Array:
        """Returns the distance of every pair of sets, float32 [B, M]."""
        target = jax.lax.stop_gradient(get_path(out, self.target))
        there, back = chamfer_distances(get_path(out, self.prediction), target)
        if self.norm == "l2":
            return there.mean(axis=-1) + back.mean(axis=-1)
        return 0.5 * (_root(there).mean(axis=-1) + _root(back).mean(axis=-1))

    def __call__(self, out: Mapping[str, Any], batch: Mapping[str, Any]) -> TermValue:
        """Sums over the sets of real examples (`_mask`, if the batch has it)."""
        values = self.per_set(out)
        weights = jnp.ones_like(values)
        if "_mask" in batch:
            weights = weights * batch["_mask"][:, None].astype(jnp.float32)
        return TermValue(total=(values * weights).sum(), count=weights.sum())


def _root(x: jax.Array) -> jax.Array:
    """The square root with gradient 0 at 0, where two points coincide."""
    positive = x > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1.0)), 0.0)

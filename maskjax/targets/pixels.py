"""The values of a patch as the target, raw or normalised per patch (MAE: He et al., 2022)."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from maskjax.errors import UserError
from maskjax.tokens import TokenGrid


@dataclasses.dataclass(frozen=True)
class Pixels:
    """The patch itself, in the model's input units (normalised by the data's mean and std)."""

    uses_target_statistics = False

    def check(self, grid: TokenGrid) -> None:
        """Any grid has pixels."""

    def size(self, grid: TokenGrid) -> int:
        """Returns P."""
        return grid.values_per_token

    def __call__(self, out: Mapping[str, Any], grid: TokenGrid) -> jax.Array:
        """Returns float32 [B, N, P]."""
        del grid
        return out["patches"].astype(jnp.float32)

    def invert(self, prediction: jax.Array, out: Mapping[str, Any]) -> jax.Array:
        """Returns a prediction in units of the patches."""
        del out
        return prediction


@dataclasses.dataclass(frozen=True)
class NormalisedPixels:
    """Each patch minus its mean, divided by its standard deviation over all P values.

    The variance is the unbiased one (divided by P - 1), as in the reference.

    Attributes:
      epsilon: added to the variance.
    """

    epsilon: float = 1e-6

    uses_target_statistics = True

    def check(self, grid: TokenGrid) -> None:
        """Refuses patches of one value, whose variance does not exist."""
        if grid.values_per_token < 2:
            raise UserError(
                "Normalised pixels need more than one value per patch, since the variance of one "
                "value is zero: use larger patches or targets.Pixels."
            )

    def size(self, grid: TokenGrid) -> int:
        """Returns P."""
        return grid.values_per_token

    def __call__(self, out: Mapping[str, Any], grid: TokenGrid) -> jax.Array:
        """Returns float32 [B, N, P]."""
        del grid
        patches = out["patches"].astype(jnp.float32)
        mean, std = self._statistics(patches)
        return (patches - mean) / std

    def invert(self, prediction: jax.Array, out: Mapping[str, Any]) -> jax.Array:
        """Returns a prediction in units of the patches, with each one's TRUE mean and std."""
        mean, std = self._statistics(out["patches"].astype(jnp.float32))
        return prediction * std + mean

    def _statistics(self, patches: jax.Array) -> tuple[jax.Array, jax.Array]:
        # Without the barrier, TPUs would sum over pixels where they lie in the image, twice, which
        # takes ten times as long.
        patches = jax.lax.optimization_barrier(patches)
        mean = patches.mean(axis=-1, keepdims=True)
        variance = patches.var(axis=-1, keepdims=True, ddof=1)
        return mean, jnp.sqrt(variance + self.epsilon)

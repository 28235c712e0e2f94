"""Terms of weight 0: figures to watch, above all whether a representation collapses."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from maskjax.objectives.term import TermValue
from maskjax.paths import get_path


def spread(features: jax.Array, real: jax.Array) -> jax.Array:
    """Mean standard deviation of unit-length features, times sqrt(D) (Chen & He, 2021, SimSiam).

    Args:
      features: float [B, D].
      real: float [B], 1, or 0 for examples that do not count.

    Returns:
      float32 []: 1 if the directions are spread evenly, 0 if all features are the same.
    """
    features = features.astype(jnp.float32)
    norm = jnp.linalg.norm(features, axis=-1, keepdims=True)
    unit = features / jnp.maximum(norm, 1e-12)
    share = (real / jnp.maximum(real.sum(), 1.0))[:, None]
    mean = (unit * share).sum(axis=0, keepdims=True)
    variance = ((unit - mean) ** 2 * share).sum(axis=0)
    # The bound keeps the gradient of a collapsed channel finite.
    return jnp.sqrt(jnp.maximum(variance, 1e-24)).mean() * features.shape[-1] ** 0.5


@dataclasses.dataclass(frozen=True)
class FeatureSpread:
    """How far the features of different examples point in different directions, see `spread`.

    A method that compares its own latents can make them all alike, which costs it nothing: its
    loss falls, and this figure goes to 0. Under accumulation it is the mean over the micro-batches.

    Attributes:
      feature: path of the features, [B, D].
      weight: 0 to watch; a negative one would reward spread.
    """

    feature: str
    weight: float = 0.0

    def __call__(self, out: Mapping[str, Any], batch: Mapping[str, Any]) -> TermValue:
        """Weighs the spread with the number of real examples (`_mask`, if the batch has it)."""
        features = get_path(out, self.feature)
        if self.weight == 0:
            features = jax.lax.stop_gradient(features)
        real = jnp.ones(features.shape[0])
        if "_mask" in batch:
            real = real * batch["_mask"].astype(jnp.float32)
        count = real.sum()
        return TermValue(total=spread(features, real) * count, count=count)

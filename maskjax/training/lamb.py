"""LAMB: Adam whose step is as long as the parameters allow, for very large batches."""

import dataclasses
import re
from typing import Any

import jax
import jax.numpy as jnp
import optax

from maskjax.paths import leaf_name
from maskjax.training.optimizers import AdamW


@dataclasses.dataclass(frozen=True)
class LAMB(AdamW):
    """LAMB (You et al., ICLR 2020, arXiv 1904.00962), as SparK trains with it.

    The direction of AdamW, for each layer scaled to the norm of its parameters. Parameters that are
    not decayed keep Adam's length. Blocks of a transformer, whose parameters are stacked, count as
    layers of their own.

    Attributes: as in `AdamW`, and
      stacked: a regular expression; parameters whose path it finds have a leading axis of layers.
    """

    b2: float = 0.95
    epsilon: float = 1e-6
    clip_norm: float | None = 5.0
    stacked: str = r"(^|/)blocks/"

    def build(self, total_steps: int) -> optax.GradientTransformation:
        """Returns gradients -> direction of descent; an update is minus learning rate times it."""
        return optax.chain(super().build(total_steps), optax.stateless(self._scaled))

    def _scaled(self, directions: Any, params: Any) -> Any:
        def scale(path: tuple, direction: jax.Array, value: jax.Array, decayed: bool) -> jax.Array:
            if not decayed:
                return direction
            first = 1 if re.search(self.stacked, leaf_name(path)) else 0
            axes = tuple(range(first, value.ndim))
            norms = [
                jnp.sqrt(jnp.square(x).sum(axis=axes, keepdims=True)) for x in (value, direction)
            ]
            positive = (norms[0] > 0) & (norms[1] > 0)
            return direction * jnp.where(positive, norms[0] / jnp.where(positive, norms[1], 1), 1)

        return jax.tree_util.tree_map_with_path(scale, directions, params, self.decays(params))

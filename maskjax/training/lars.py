"""LARS: momentum whose steps are in proportion to the parameters, for very large batches."""

import dataclasses
import functools
import re
from typing import Any

import jax
import optax

from maskjax.paths import leaf_name
from maskjax.training.optimizers import decays


@dataclasses.dataclass(frozen=True)
class LARS:
    """LARS (You et al., 2017, arXiv 1708.03888), as MAE's linear probe is trained with it.

    The gradient of a layer, with its weight decay, is scaled to `trust` times the norm of its
    parameters; what comes out goes into the momentum v <- momentum v + g, and the parameters move
    by the learning rate times v. (`optax.lars` applies the rate before the momentum, which is
    another course where the rate changes.) Biases and norms have plain momentum. Blocks of a
    transformer, whose parameters are stacked, count as layers of their own.

    Attributes:
      momentum: of the sum of gradients.
      trust: length of a step, relative to the parameters, at a learning rate of 1.
      weight_decay: added to the gradient as this times the parameters.
      no_decay: regular expressions; a parameter whose path one of them finds is neither decayed nor
        scaled.
      stacked: a regular expression; parameters whose path it finds have a leading axis of layers.
    """

    momentum: float = 0.9
    trust: float = 0.001
    weight_decay: float = 0.0
    no_decay: tuple[str, ...] = (r"(^|/)bias$", r"(^|/)scale$")
    stacked: str = r"(^|/)blocks/"

    def build(self, total_steps: int) -> optax.GradientTransformation:
        """Returns gradients -> direction of descent; an update is minus learning rate times it."""
        del total_steps

        decayed = functools.partial(decays, no_decay=self.no_decay)
        return optax.chain(
            optax.add_decayed_weights(self.weight_decay, decayed),
            optax.masked(optax.stateless(self._scaled), decayed),
            optax.trace(self.momentum),
        )

    def _scaled(self, gradients: Any, params: Any) -> Any:
        rule = optax.scale_by_trust_ratio(trust_coefficient=self.trust)

        def layer(gradient: jax.Array, value: jax.Array) -> jax.Array:
            scaled: Any = rule.update(gradient, optax.EmptyState(), value)[0]
            return scaled

        def scale(path: tuple, gradient: jax.Array, value: jax.Array) -> jax.Array:
            stacked = re.search(self.stacked, leaf_name(path))
            return (jax.vmap(layer) if stacked else layer)(gradient, value)

        return jax.tree_util.tree_map_with_path(scale, gradients, params)

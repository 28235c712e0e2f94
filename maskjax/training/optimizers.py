"""Optimisers, by optax; the learning rate is applied by the training step."""

import dataclasses
import re
from collections.abc import Iterable
from typing import Any

import jax
import optax

from maskjax.paths import leaf_name


@dataclasses.dataclass(frozen=True)
class AdamW:
    """AdamW with decoupled weight decay (Loshchilov & Hutter, 2019).

    Attributes:
      b1: decay of the first moment.
      b2: decay of the second moment; MAE pretrains with 0.95.
      epsilon: added to the root of the second moment.
      weight_decay: per unit of learning rate.
      final_weight_decay: reached at the end of the training along half a cosine, as self-distilling
        systems do (DINO, I-JEPA); None: it stays the same.
      no_decay: regular expressions; a parameter whose path ("encoder/norm/scale") one of them finds
        is not decayed. The default spares biases and normalisation, as MAE's pretraining does (its
        class and mask tokens are decayed).
      clip_norm: gradients are scaled down to this global norm; None: they are not.
    """

    b1: float = 0.9
    b2: float = 0.95
    epsilon: float = 1e-8
    weight_decay: float = 0.05
    final_weight_decay: float | None = None
    no_decay: tuple[str, ...] = (r"(^|/)bias$", r"(^|/)scale$")
    clip_norm: float | None = None

    def build(self, total_steps: int) -> optax.GradientTransformation:
        """Returns gradients -> direction of descent; an update is minus learning rate times it."""
        clip = () if self.clip_norm is None else (optax.clip_by_global_norm(self.clip_norm),)
        return optax.chain(
            *clip,
            optax.scale_by_adam(self.b1, self.b2, self.epsilon),
            optax.add_decayed_weights(self.decay(total_steps), self.decays),
        )

    def decay(self, total_steps: int) -> float | optax.Schedule:
        """Returns the weight decay, or step -> weight decay if it changes."""
        if self.final_weight_decay is None:
            return self.weight_decay
        change = optax.cosine_decay_schedule(1.0, max(1, total_steps - 1))
        last = self.final_weight_decay
        return lambda step: last + (self.weight_decay - last) * change(step)

    def decays(self, params: Any) -> Any:
        """Returns a tree of bools: which parameters are decayed."""
        return decays(params, self.no_decay)


def decays(params: Any, no_decay: Iterable[str]) -> Any:
    """Returns a tree of bools: False where one of the regular expressions finds the path."""
    patterns = [re.compile(pattern) for pattern in no_decay]

    def decays(path: tuple, _: Any) -> bool:
        name = leaf_name(path)
        return not any(pattern.search(name) for pattern in patterns)

    return jax.tree_util.tree_map_with_path(decays, params)

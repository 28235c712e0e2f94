"""AdamW for fine-tuning: the nearer a layer is to the input, the less it is changed."""

import dataclasses
import re
from typing import Any

import jax
import numpy as np
import optax

from maskjax.errors import UserError
from maskjax.paths import named_leaves
from maskjax.training.optimizers import AdamW


@dataclasses.dataclass(frozen=True)
class LayerwiseAdamW(AdamW):
    """AdamW with a learning rate for every layer (BEiT: Bao et al., 2022; MAE's fine-tuning).

    Layer 0 is what stands before the blocks, layer k = 1..depth is a block, layer depth + 1 is
    everything else: the last norm and the head. Layer k learns with `layer_decay`^(depth + 1 - k)
    times the learning rate, which scales its weight decay alike.

    Attributes: as in `AdamW`, whose class token and positions are not decayed here, and
      layer_decay: in (0, 1]; 1: the same rate everywhere.
      first: regular expressions; a parameter whose path one of them finds is of layer 0.
      stacked: a regular expression; parameters whose path it finds are blocks, [depth, ...].

    Raises:
      UserError: a factor out of range, or parameters without blocks, or of several stacks.
    """

    b2: float = 0.999
    no_decay: tuple[str, ...] = (*AdamW.no_decay, r"(^|/)cls$", r"(^|/)positions$")
    layer_decay: float = 0.75
    first: tuple[str, ...] = (r"^encoder/(embed|cls|mask_token|positions)(/|$)",)
    stacked: str = r"^encoder/(.*/)?blocks/"

    def __post_init__(self) -> None:
        if not 0 < self.layer_decay <= 1:
            raise UserError(f"optimizer.layer_decay is {self.layer_decay}: give 0 to 1, without 0.")

    def build(self, total_steps: int) -> optax.GradientTransformation:
        """Returns gradients -> direction of descent; an update is minus learning rate times it."""

        def init(params: Any) -> optax.EmptyState:
            self.scales(params)  # says what is wrong before the first step
            return optax.EmptyState()

        def scaled(directions: Any, state: Any, *_: Any, **__: Any) -> tuple[Any, Any]:
            return jax.tree.map(lambda d, s: d * s, directions, self.scales(directions)), state

        return optax.chain(super().build(total_steps), optax.GradientTransformation(init, scaled))

    def scales(self, params: Any) -> Any:
        """Returns a tree of factors of the learning rate, float32 []; of blocks [depth, 1, ...]."""
        names = named_leaves(params)
        blocks = {n: leaf for n, leaf in names.items() if re.search(self.stacked, n)}
        depths = {leaf.shape[0] for leaf in blocks.values()}
        if len(depths) != 1:
            raise UserError(
                "LayerwiseAdamW needs one stack of blocks, but "
                f"{'there are several' if depths else 'there is none'} at optimizer.stacked = "
                f"'{self.stacked}': set it, or use training.AdamW."
            )
        depth = depths.pop()

        def scale(name: str, leaf: jax.Array) -> np.ndarray:
            if name in blocks:
                layers = np.arange(1, depth + 1).reshape(-1, *[1] * (leaf.ndim - 1))
            elif any(re.search(pattern, name) for pattern in self.first):
                layers = np.zeros(())
            else:
                layers = np.full((), depth + 1)
            return np.asarray(self.layer_decay ** (depth + 1 - layers), np.float32)

        scales = [scale(name, leaf) for name, leaf in names.items()]
        return jax.tree.structure(params).unflatten(scales)

"""Several modalities, each masked by a sampler of its own (M3AE: Geng et al., 2022)."""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from maskjax.config import nearest
from maskjax.errors import UserError
from maskjax.masking.budget import BudgetMask, split_budget
from maskjax.masking.mask import Mask
from maskjax.masking.sampler import Sampler
from maskjax.tokens import TokenGrid


def join_masks(masks: Mapping[str, Mask]) -> Mask:
    """Returns the mask of the concatenation of several modalities.

    Visible tokens stay in the order of their own masks, one modality after the other, and so do
    the hidden ones.

    Args:
      masks: {name: Mask}, each of one batch size.
    """
    keep, drop, restore = [], [], []
    kept = sum(mask.keep.shape[1] for mask in masks.values())
    start, visible, hidden = 0, 0, 0  # tokens, visible tokens, hidden tokens so far
    for mask in masks.values():
        k, n = mask.keep.shape[1], mask.restore.shape[1]
        keep.append(mask.keep + start)
        drop.append(mask.drop + start)
        # A rank among this modality's visible (hidden) tokens becomes one among all of them.
        restore.append(mask.restore + jnp.where(mask.is_masked, kept + hidden - k, visible))
        start, visible, hidden = start + n, visible + k, hidden + n - k
    return Mask(*(jnp.concatenate(parts, axis=1) for parts in (keep, drop, restore)))


@dataclasses.dataclass(frozen=True)
class Separate:
    """Draws the mask of each modality independently; the number of visible tokens is static.

    Attributes:
      samplers: {name of the modality: sampler}.
    """

    samplers: Mapping[str, Sampler]

    def check(self, grids: Mapping[str, TokenGrid]) -> None:
        """Refuses names without a partner, and whatever the samplers refuse."""
        for name in self.samplers:
            if name not in grids:
                raise UserError(
                    f"system.mask has a sampler for an unknown modality '{name}'"
                    f"{nearest(name, grids)}"
                )
        for name, grid in grids.items():
            if name not in self.samplers:
                raise UserError(
                    f"system.mask has no sampler for the modality '{name}': add one to "
                    "system.mask.samplers."
                )
            self.samplers[name].check(grid)

    def __call__(
        self,
        rng: jax.Array,
        batch_size: int,
        grids: Mapping[str, TokenGrid],
        scores: jax.Array | None = None,
        progress: jax.Array | float = 0.0,
    ) -> BudgetMask:
        """Draws a mask per example.

        Args:
          rng: a key; the draws of a modality do not depend on which others there are.
          batch_size: B.
          grids: geometry of each modality, by name.
          scores: ignored.
          progress: share of the training that is done, for samplers that use it.
        """
        del scores
        keys = dict(
            zip(sorted(self.samplers), jax.random.split(rng, len(self.samplers)), strict=True)
        )
        masks = {
            name: self.samplers[name](keys[name], batch_size, grid, progress=progress)
            for name, grid in grids.items()
        }
        return split_budget(join_masks(masks), grids)

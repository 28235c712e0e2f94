"""Tube masks: one spatial mask, repeated over time (VideoMAE: Tong et al., 2022, section 3.3)."""

import dataclasses
import math

import jax
import jax.numpy as jnp

from maskjax.errors import UserError
from maskjax.masking.counts import check_hidden, floor_share
from maskjax.masking.mask import Mask, mask_from_hidden, mask_from_scores
from maskjax.tokens import TokenGrid


def tube_mask(hidden: jax.Array, frames: int, visible: int) -> Mask:
    """Repeats the map of one frame over time.

    Args:
      hidden: bool [B, positions of a frame], True = masked.
      frames: time steps (of tokens).
      visible: unmasked positions of a frame, static.

    Returns:
      Mask of frames * positions tokens (time slowest), kept and dropped tokens ascending.
    """
    return mask_from_hidden(jnp.tile(hidden, (1, frames)), visible * frames)


@dataclasses.dataclass(frozen=True)
class Tube:
    """Hides the same places in every frame, so that nothing leaks through time.

    The number of hidden places of a frame is rounded down (176 of 196 at 0.9), as published. The
    first axis of the grid is time; with a single axis every token would be a frame of its own.

    Attributes:
      ratio: share of masked places, in (0, 1).
    """

    ratio: float = 0.9

    def check(self, grid: TokenGrid) -> None:
        """Refuses grids without a time axis, and a ratio that masks all or none."""
        if len(grid.shape) < 2:
            raise UserError("A tube mask needs tokens along time and space, not along one axis.")
        places = math.prod(grid.shape[1:])
        check_hidden(
            floor_share(places, self.ratio), places, f"ratio={self.ratio}", "places of a frame"
        )

    def __call__(
        self,
        rng: jax.Array,
        batch_size: int,
        grid: TokenGrid,
        scores: jax.Array | None = None,
        progress: jax.Array | float = 0.0,
    ) -> Mask:
        """Draws a mask per example; `scores` and `progress` have no influence."""
        del scores, progress
        places = math.prod(grid.shape[1:])
        visible = places - floor_share(places, self.ratio)
        noise = jax.random.uniform(rng, (batch_size, places))
        return tube_mask(mask_from_scores(noise, visible).is_masked, grid.shape[0], visible)

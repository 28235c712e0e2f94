"""Masks of cells that are larger than the patches (SimMIM: Xie et al., 2022, section 3.2)."""

import dataclasses

import jax
import jax.numpy as jnp

from maskjax.errors import UserError
from maskjax.masking.counts import ceil_share, check_hidden
from maskjax.masking.mask import Mask, mask_from_hidden, mask_from_scores
from maskjax.tokens import TokenGrid


def spread_cells(cells: jax.Array, grid: TokenGrid, per_cell: tuple[int, ...]) -> jax.Array:
    """Repeats the value of a cell for each of its tokens.

    Args:
      cells: [B, number of cells] in raster order.
      grid: geometry of the tokens.
      per_cell: number of tokens of a cell along each axis of the grid.

    Returns:
      [B, N] in raster order of the tokens.
    """
    shape = [n // k for n, k in zip(grid.shape, per_cell, strict=True)]
    spread = cells.reshape(-1, *shape)
    for axis, repeats in enumerate(per_cell):
        spread = jnp.repeat(spread, repeats, axis=axis + 1)
    return spread.reshape(-1, grid.num_tokens)


@dataclasses.dataclass(frozen=True)
class Coarse:
    """Hides cells of several patches, drawn without replacement for each example.

    The number of hidden cells is rounded up (22 of 36 at a ratio of 0.6), as published. The tokens
    stay in raster order.

    Attributes:
      ratio: share of masked cells, in (0, 1).
      cell: extent of a cell along each axis, in pixels (frames, ...): a multiple of the patch.
    """

    ratio: float = 0.6
    cell: tuple[int, ...] = (32, 32)

    def check(self, grid: TokenGrid) -> None:
        """Refuses cells that patches do not fill, and a ratio that masks all or none."""
        shown = ["x".join(map(str, v)) for v in (self.cell, grid.patch, grid.size)]
        if len(self.cell) != len(grid.patch) or any(
            c < 1 or c % p or s % c
            for c, p, s in zip(self.cell, grid.patch, grid.size, strict=True)
        ):
            raise UserError(
                f"A mask cell of {shown[0]} is not a whole number of patches of {shown[1]}, or "
                f"does not divide data of {shown[2]}: change system.mask.cell."
            )
        cells = self._cells(grid)
        check_hidden(ceil_share(cells, self.ratio), cells, f"ratio={self.ratio}", "cells")

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
        cells = self._cells(grid)
        visible = cells - ceil_share(cells, self.ratio)
        hidden = mask_from_scores(jax.random.uniform(rng, (batch_size, cells)), visible).is_masked
        per_cell = tuple(c // p for c, p in zip(self.cell, grid.patch, strict=True))
        tokens = grid.num_tokens // cells
        return mask_from_hidden(spread_cells(hidden, grid, per_cell), visible * tokens)

    def _cells(self, grid: TokenGrid) -> int:
        count = 1
        for size, cell in zip(grid.size, self.cell, strict=True):
            count *= size // cell
        return count

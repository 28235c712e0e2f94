"""Running cells: which cubes a video decoder sees (VideoMAE V2: Wang et al., 2023, section 3.2)."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from maskjax.errors import UserError
from maskjax.masking.counts import floor_share
from maskjax.masking.mask import Mask, mask_from_hidden
from maskjax.tokens import TokenGrid

_CELL = 4  # places of a cell of 2 x 2


def running_cell_maps(shape: tuple[int, ...], hidden_per_cell: int) -> np.ndarray:
    """Returns the maps of all four phases, bool [4, T * H * W], True = hidden.

    In cells of 2 x 2 places the first `hidden_per_cell` of four turns are hidden; the turn of a
    place advances by one with every time step. The pointer moves before the first frame.

    Args:
      shape: (T, H, W) of the token grid, H and W even.
      hidden_per_cell: 1, 2 or 3.
    """
    phase, time, row, column = np.ogrid[:_CELL, : shape[0], : shape[1], : shape[2]]
    turn = (2 * (row % 2) + column % 2 + phase + time + 1) % _CELL
    return (turn < hidden_per_cell).reshape(_CELL, -1)


@dataclasses.dataclass(frozen=True)
class RunningCell:
    """Hides places of 2 x 2 cells in turn, from one of four phases drawn for each example.

    At a ratio of 0.5 every place is shown in half of the time steps, with period four.

    Attributes:
      ratio: share of hidden tokens: 0.25, 0.5 or 0.75; others are rounded down to these.
    """

    ratio: float = 0.5

    def check(self, grid: TokenGrid) -> None:
        """Refuses grids that are not (time, even height, even width), and ratios below 0.25."""
        if len(grid.shape) != 3 or grid.shape[1] % 2 or grid.shape[2] % 2:
            shape = "x".join(map(str, grid.shape))
            raise UserError(
                "Running cells need tokens along time, height and width, the last two even, "
                f"not {shape}."
            )
        if not 0 < floor_share(_CELL, self.ratio) < _CELL:
            raise UserError(
                f"A running cell has four places: its ratio is 0.25, 0.5 or 0.75, not {self.ratio}."
            )

    def __call__(
        self,
        rng: jax.Array,
        batch_size: int,
        grid: TokenGrid,
        scores: jax.Array | None = None,
        progress: jax.Array | float = 0.0,
    ) -> Mask:
        """Draws a phase per example; `scores` and `progress` have no influence."""
        del scores, progress
        hidden = floor_share(_CELL, self.ratio)
        maps = jnp.asarray(running_cell_maps(grid.shape, hidden))
        phases = jax.random.randint(rng, (batch_size,), 0, _CELL)
        return mask_from_hidden(maps[phases], grid.num_tokens * (_CELL - hidden) // _CELL)

"""One mask for all examples, given by hand."""

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from maskjax.errors import UserError
from maskjax.masking.mask import Mask, mask_from_hidden
from maskjax.tokens import TokenGrid


@dataclasses.dataclass(frozen=True)
class Fixed:
    """Hides the same tokens of every example. Visible and hidden ones are in raster order.

    Attributes:
      hidden: numbers of the masked tokens in raster order, from 0, each once.
    """

    hidden: tuple[int, ...]

    def check(self, grid: TokenGrid) -> None:
        """Refuses tokens that do not exist, and a mask that leaves none to see or to predict."""
        count = grid.num_tokens
        if wrong := [number for number in self.hidden if not 0 <= number < count]:
            raise UserError(
                f"The mask hides token {wrong[0]}, but the {count} tokens of the grid of "
                f"{_extent(grid.shape)} have the numbers 0 to {count - 1}."
            )
        if len(set(self.hidden)) != len(self.hidden):
            raise UserError("The mask names a token twice: name each hidden token once.")
        if not 0 < len(self.hidden) < count:
            which = "all" if self.hidden else "none"
            raise UserError(
                f"The mask hides {which} of the {count} tokens: hide some, so that there is "
                "something to see and something to predict."
            )

    def __call__(
        self,
        rng: jax.Array,
        batch_size: int,
        grid: TokenGrid,
        scores: jax.Array | None = None,
        progress: jax.Array | float = 0.0,
    ) -> Mask:
        """Returns the mask for each example; nothing is drawn."""
        del rng, scores, progress
        hidden = np.zeros((1, grid.num_tokens), bool)
        hidden[0, list(self.hidden)] = True
        hidden = jnp.broadcast_to(jnp.asarray(hidden), (batch_size, grid.num_tokens))
        return mask_from_hidden(hidden, grid.num_tokens - len(self.hidden))


def hidden_tokens(mask: Any, grid: TokenGrid) -> tuple[int, ...]:
    """Reads a mask that somebody wrote down.

    Args:
      mask: numbers of the hidden tokens, as integers [M] or as text, "0,3,7"; or a map, bool (or 0
        and 1) of the shape of the grid, or bool [N] in raster order, True = hidden; or the path of
        a `.npy` file with one of these arrays.
      grid: geometry of the tokens.

    Returns:
      The numbers of the hidden tokens, ascending, each once.

    Raises:
      UserError: it is none of these, or hides none or all.
    """
    array = _array(mask)
    if array.ndim == 1 and array.dtype.kind in "iu":
        hidden = tuple(int(number) for number in np.unique(array))
    else:
        flat = array.ndim == 1 and array.dtype == bool
        shape = (grid.num_tokens,) if flat else grid.shape
        if array.dtype.kind not in "biu" or not np.isin(array, (0, 1)).all():
            raise UserError(
                f"The mask is {array.dtype} {list(array.shape)}: give the numbers of the hidden "
                "tokens as integers, or True and False for every token."
            )
        if array.shape != tuple(shape):
            raise UserError(
                f"The mask is {_extent(array.shape)}, but the tokens form a grid of "
                f"{_extent(grid.shape)}: give one value for each of the {grid.num_tokens} tokens."
            )
        hidden = tuple(int(number) for number in np.flatnonzero(array))
    Fixed(hidden).check(grid)
    return hidden


def _array(mask: Any) -> np.ndarray:
    if isinstance(mask, os.PathLike) or (isinstance(mask, str) and mask.endswith(".npy")):
        try:
            return np.load(mask, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise UserError(
                f"The mask '{os.fspath(mask)}' cannot be read as a .npy file: {error}."
            ) from None
    if isinstance(mask, str):
        try:
            return np.array([int(number) for number in mask.split(",") if number.strip()], int)
        except ValueError:
            raise UserError(
                f"The mask '{mask}' is no list of token numbers: write it as 0,3,7 or give the "
                "path of a .npy file."
            ) from None
    array = np.asarray(mask)
    # Of nothing NumPy makes floats.
    return array.astype(int) if isinstance(mask, Sequence) and not len(mask) else array


def _extent(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape)) or "a single value"

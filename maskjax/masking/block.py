"""Block-wise masks (BEiT: Bao et al., 2022, algorithm 1) with an exact count."""

import dataclasses
import math

import jax
import jax.numpy as jnp

from maskjax.errors import UserError
from maskjax.masking.counts import check_hidden, floor_share
from maskjax.masking.mask import Mask, mask_from_hidden, mask_from_scores
from maskjax.tokens import TokenGrid

# Rectangles tried at once. The first that fits is taken and the others are forgotten, so that the
# distribution is that of trying one after the other.
_AT_ONCE = 8
_MAX_ROUNDS = 400


def block_map(
    rng: jax.Array,
    shape: tuple[int, ...],
    count: int,
    min_block: int = 16,
    max_block: int | None = None,
    min_aspect: float = 0.3,
) -> jax.Array:
    """Draws rectangles until exactly `count` tokens are hidden.

    A rectangle has an area uniform in [min_block, q], q the number still to be hidden (uniform
    in [q, min_block] when q is the smaller, where only overlap makes a rectangle fit), and an
    aspect ratio that is log-uniform in [min_aspect, 1 / min_aspect]. It is taken if it is smaller
    than the image on both sides and newly hides between 1 and q tokens. The original BEiT code
    stops with fewer tokens after ten failures in a row; this is the variant of CAE (Chen et al.,
    2022), which goes on. Should `count` not be reached after thousands of trials, what lacks is
    filled by tokens that touch the mask.

    Args:
      rng: a key.
      shape: (rows, columns) of the token grid.
      count: hidden tokens, static.
      min_block: smallest area of a rectangle, in tokens.
      max_block: largest area; None: as many as are to be hidden.
      min_aspect: smallest height / width.

    Returns:
      bool [rows, columns], True = masked.
    """
    rows, columns = jnp.arange(float(shape[0])), jnp.arange(float(shape[1]))
    log_aspect = math.log(min_aspect)
    largest = count if max_block is None else max_block

    def propose(u: jax.Array, rest: jax.Array) -> jax.Array:
        """Returns the rectangle of four uniform numbers; empty if its sides are too long."""
        area = min_block + u[0] * (jnp.minimum(rest, largest) - min_block)
        aspect = jnp.exp(log_aspect * (1 - 2 * u[1]))
        height = jnp.round(jnp.sqrt(area * aspect))
        width = jnp.round(jnp.sqrt(area / aspect))
        top = jnp.floor(u[2] * (shape[0] - height + 1))
        left = jnp.floor(u[3] * (shape[1] - width + 1))
        fits = (height < shape[0]) & (width < shape[1])
        vertical = (rows >= top) & (rows < top + height) & fits
        horizontal = (columns >= left) & (columns < left + width)
        return vertical[:, None] & horizontal[None, :]

    def unfinished(state: tuple) -> jax.Array:
        hidden, turn = state
        return (hidden.sum() < count) & (turn < _MAX_ROUNDS)

    def round_of_trials(state: tuple) -> tuple:
        hidden, turn = state
        u = jax.random.uniform(jax.random.fold_in(rng, turn), (_AT_ONCE, 4))
        rest = count - hidden.sum()
        rectangles = jax.vmap(propose, (0, None))(u, rest)
        new = (rectangles & ~hidden[None, :, :]).sum(axis=(1, 2))
        fits = (new > 0) & (new <= rest)
        chosen = rectangles[jnp.argmax(fits)] & fits.any()
        return hidden | chosen, turn + 1

    start = (jnp.zeros(shape, bool), jnp.int32(0))
    hidden, _ = jax.lax.while_loop(unfinished, round_of_trials, start)
    return _fill(jax.random.fold_in(rng, _MAX_ROUNDS), hidden, count)


def _fill(rng: jax.Array, hidden: jax.Array, count: int) -> jax.Array:
    """Hides further tokens, those with hidden neighbours first, until there are `count`."""
    padded = jnp.pad(hidden, 1).astype(jnp.float32)
    neighbours = padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]
    order = jax.random.uniform(rng, hidden.shape) + neighbours + 10.0 * hidden
    mask = mask_from_scores(order.reshape(1, -1), hidden.size - count)
    return mask.is_masked.reshape(hidden.shape)


@dataclasses.dataclass(frozen=True)
class Block:
    """Hides rectangles of tokens; the tokens stay in raster order.

    Attributes:
      ratio: share of masked tokens, rounded down, in (0, 1).
      count: number of masked tokens, in place of `ratio` (75 of 196 in BEiT, 98 in CAE).
      min_block: smallest area of a rectangle, in tokens.
      max_block: largest area; None: no limit.
      min_aspect: smallest aspect ratio, in (0, 1]; the largest is its inverse.
    """

    ratio: float = 0.4
    count: int | None = None
    min_block: int = 16
    max_block: int | None = None
    min_aspect: float = 0.3

    def check(self, grid: TokenGrid) -> None:
        """Refuses grids of other than two axes, impossible counts, and blocks that cannot fit."""
        if len(grid.shape) != 2:
            raise UserError(f"Block masks need two axes of tokens, not {len(grid.shape)}.")
        setting = f"ratio={self.ratio}" if self.count is None else f"count={self.count}"
        check_hidden(self._hidden(grid), grid.num_tokens, setting)
        largest = self._hidden(grid) if self.max_block is None else self.max_block
        if not 0 < self.min_block <= largest:
            raise UserError(
                f"system.mask.min_block={self.min_block} must be positive and at most {largest}, "
                "the largest block or the number of masked tokens."
            )
        if self.min_block > (grid.shape[0] - 1) * (grid.shape[1] - 1):
            raise UserError(
                f"A block of {self.min_block} tokens does not fit into {grid.shape[0]}x"
                f"{grid.shape[1]} tokens: reduce system.mask.min_block."
            )
        if not 0 < self.min_aspect <= 1:
            raise UserError(f"system.mask.min_aspect must lie in (0, 1], not {self.min_aspect}.")

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
        count = self._hidden(grid)

        def draw(rng: jax.Array) -> jax.Array:
            return block_map(
                rng, grid.shape, count, self.min_block, self.max_block, self.min_aspect
            )

        hidden = jax.vmap(draw)(jax.random.split(rng, batch_size))
        return mask_from_hidden(hidden.reshape(batch_size, -1), grid.num_tokens - count)

    def _hidden(self, grid: TokenGrid) -> int:
        return floor_share(grid.num_tokens, self.ratio) if self.count is None else self.count

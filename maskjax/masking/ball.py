"""Masks that hide a ball: one token and those nearest to it in space."""

import dataclasses

import jax
import jax.numpy as jnp

from maskjax.errors import UserError
from maskjax.masking.counts import check_hidden, floor_share
from maskjax.masking.mask import Mask, mask_from_hidden
from maskjax.tokens import TokenGrid, take_tokens


@dataclasses.dataclass(frozen=True)
class Ball:
    """Hides a random token and its nearest neighbours (Point-MAE's block masking, section 3.1).

    The system passes where the tokens are, so this is for tokens with places of their own, such as
    groups of points.

    Attributes:
      ratio: share of hidden tokens, rounded down.
    """

    ratio: float = 0.6

    needs_places = True

    def check(self, grid: TokenGrid) -> None:
        """Refuses a ratio that leaves no token to see or no token to predict."""
        hidden = floor_share(grid.num_tokens, self.ratio)
        check_hidden(hidden, grid.num_tokens, f"ratio={self.ratio}")

    def __call__(
        self,
        rng: jax.Array,
        batch_size: int,
        grid: TokenGrid,
        scores: jax.Array | None = None,
        progress: jax.Array | float = 0.0,
        places: jax.Array | None = None,
    ) -> Mask:
        """Draws a mask per example.

        Args:
          rng: a key.
          batch_size: B.
          grid: of the tokens.
          scores: no influence.
          progress: no influence.
          places: float [B, N, 3], where the tokens are; needed.
        """
        del scores, progress
        if places is None:
            raise UserError(
                "masking.Ball is for tokens that have places, such as groups of points: choose "
                "another system.mask."
            )
        start = jax.random.randint(rng, (batch_size,), 0, grid.num_tokens)
        return ball_mask(places, start, floor_share(grid.num_tokens, self.ratio))


def ball_mask(places: jax.Array, start: jax.Array, hidden: int) -> Mask:
    """Hides the tokens nearest to one of them, itself included; ties go by index.

    Args:
      places: float [B, N, 3].
      start: int [B], the token in the middle.
      hidden: M, static.
    """
    middle = take_tokens(places, start[:, None])
    distance = jnp.square(places - middle).sum(axis=-1)
    nearest = jnp.argsort(distance, axis=-1)[:, :hidden]
    rows = jnp.arange(places.shape[0])[:, None]
    is_hidden = jnp.zeros(distance.shape, bool).at[rows, nearest].set(True)
    return mask_from_hidden(is_hidden, distance.shape[1] - hidden)

"""Uniform random masking, per example (MAE: He et al., 2022, section 3)."""

import dataclasses

import jax
import jax.numpy as jnp

from maskjax.errors import UserError
from maskjax.masking.mask import Mask, mask_from_scores
from maskjax.tokens import TokenGrid


def num_kept(num_tokens: int, ratio: float) -> int:
    """Returns K = floor(N (1 - ratio)), the number of visible tokens."""
    # The small term keeps products such as 10 * (1 - 0.9) = 0.99999... from losing a token.
    return int(num_tokens * (1.0 - ratio) + 1e-9)


@dataclasses.dataclass(frozen=True)
class Uniform:
    """Masks a fixed share of the tokens, chosen independently for each example.

    Attributes:
      ratio: share of masked tokens, in (0, 1).
      shared: one draw for the whole batch instead, as the published code of M3AE (Geng et al.,
        2022) has it; its paper does not say so.
    """

    ratio: float = 0.75
    shared: bool = False

    def check(self, grid: TokenGrid) -> None:
        """Refuses a ratio that leaves no token to see or no token to predict."""
        keep = num_kept(grid.num_tokens, self.ratio)
        if not 0 < keep < grid.num_tokens:
            what = "masks all" if keep <= 0 else "masks none"
            raise UserError(
                f"A mask ratio of {self.ratio} {what} of the {grid.num_tokens} tokens: "
                "choose system.mask.ratio so that some are visible and some are masked."
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
        rows = 1 if self.shared else batch_size
        noise = jax.random.uniform(rng, (rows, grid.num_tokens))
        mask = mask_from_scores(noise, num_kept(grid.num_tokens, self.ratio))
        if not self.shared:
            return mask
        return jax.tree.map(lambda x: jnp.broadcast_to(x, (batch_size, x.shape[1])), mask)

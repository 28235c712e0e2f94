"""Uniform random masking, per example (MAE: He et al., 2022, section 3)."""

import dataclasses

import jax

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
    """

    ratio: float = 0.75

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
        noise = jax.random.uniform(rng, (batch_size, grid.num_tokens))
        return mask_from_scores(noise, num_kept(grid.num_tokens, self.ratio))

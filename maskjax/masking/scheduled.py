"""Masks whose number of hidden tokens differs between examples (MaskGIT: Chang et al., 2022).

Shapes stay static all the same: such a mask is bool [B, N], and networks that use it see every
position, hidden ones with a mask token.
"""

import dataclasses

import jax
import jax.numpy as jnp

from maskjax.errors import UserError
from maskjax.masking.budget import Hidden
from maskjax.masking.ratio_schedules import mask_ratio
from maskjax.tokens import TokenGrid


def variable_mask(scores: jax.Array, hidden: jax.Array) -> Hidden:
    """Hides the tokens of highest score, as `mask_from_scores` does; ties hide the later token.

    Args:
      scores: float [B, N].
      hidden: int [B], how many tokens to hide in each example.
    """
    rank = jnp.argsort(jnp.argsort(scores, axis=-1), axis=-1)
    return Hidden(rank >= scores.shape[-1] - hidden[:, None])


@dataclasses.dataclass(frozen=True)
class ScheduledRatio:
    """Hides ceil(gamma(r) N) random tokens, with r ~ U[0, 1) drawn for each example.

    Attributes:
      schedule: gamma, see `mask_ratio`.
      exponent: of the schedule "pow".
      least: a lower bound of the share of hidden tokens, in [0, 1].
    """

    schedule: str = "cosine"
    exponent: float = 2.0
    least: float = 0.0

    def __post_init__(self) -> None:
        mask_ratio(self.schedule, 0.5, exponent=self.exponent)  # refuses unknown names
        if not 0 <= self.least <= 1:
            raise UserError(
                f"The least share of hidden tokens is {self.least}: it has to be in [0, 1]."
            )

    def check(self, grid: TokenGrid) -> None:
        """Refuses a single token, of which nothing can be learned but its frequency."""
        if grid.num_tokens < 2:
            raise UserError(
                "A scheduled mask ratio needs at least two tokens: use smaller patches or a finer "
                "tokenizer."
            )

    def __call__(
        self,
        rng: jax.Array,
        batch_size: int,
        grid: TokenGrid,
        scores: jax.Array | None = None,
        progress: jax.Array | float = 0.0,
    ) -> Hidden:
        """Draws a mask per example; at least one token is hidden, perhaps all of them."""
        del scores, progress
        n = grid.num_tokens
        ratio_rng, noise_rng = jax.random.split(rng)
        r = jax.random.uniform(ratio_rng, (batch_size,))
        share = jnp.maximum(mask_ratio(self.schedule, r, n, self.exponent), self.least)
        # Products such as 0.35 * 20 may exceed the whole number by rounding.
        hidden = jnp.clip(jnp.ceil(share * n - 1e-4).astype(jnp.int32), 1, n)
        return variable_mask(jax.random.uniform(noise_rng, (batch_size, n)), hidden)

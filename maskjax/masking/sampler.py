"""What every mask sampler is."""

from typing import Protocol

import jax

from maskjax.masking.mask import Mask
from maskjax.tokens import TokenGrid


class Sampler(Protocol):
    """A pure, jittable function that draws one mask per example.

    Draws depend on the key, the batch size and the grid alone, never on the number of devices.
    """

    def check(self, grid: TokenGrid) -> None:
        """Raises a UserError if no valid mask can be drawn on this grid."""
        ...

    def __call__(
        self,
        rng: jax.Array,
        batch_size: int,
        grid: TokenGrid,
        scores: jax.Array | None = None,
        progress: jax.Array | float = 0.0,
    ) -> Mask:
        """Draws the masks of a batch.

        Args:
          rng: a key.
          batch_size: B, over all devices.
          grid: geometry of the tokens.
          scores: float [B, N] from a teacher, for samplers that are guided; others ignore it.
          progress: share of the training that is done, in [0, 1].
        """
        ...

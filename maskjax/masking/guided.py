"""Masks guided by scores, from easy to hard (HPM: Wang et al., 2023, section 3.3)."""

import dataclasses

import jax
import jax.numpy as jnp

from maskjax.errors import UserError
from maskjax.masking.counts import check_hidden
from maskjax.masking.mask import Mask, mask_from_hidden, mask_from_scores
from maskjax.masking.uniform import num_kept
from maskjax.tokens import TokenGrid


def guided_mask(scores: jax.Array, noise: jax.Array, keep: int, hard: jax.Array) -> Mask:
    """Masks the `hard` tokens of highest score, and a random choice of the others.

    Args:
      scores: float [B, N]; ties go to the token that comes first.
      noise: float [B, N], uniform in [0, 1).
      keep: K, static.
      hard: int [], at most N - K; may be traced.

    Returns:
      Mask with N - K hidden tokens, kept and dropped tokens in raster order.
    """
    rank = jnp.argsort(jnp.argsort(-scores, axis=-1), axis=-1)
    # What must be hidden comes after any noise.
    order = jnp.where(rank < hard, 2.0, noise)
    return mask_from_hidden(mask_from_scores(order, keep).is_masked, keep)


@dataclasses.dataclass(frozen=True)
class Guided:
    """Hides the patches that a teacher finds hard; their share grows during the training.

    floor(M `hard_share` progress) of the M masked tokens are those of highest score, the others are
    uniform among the rest. Without scores (for example to initialise a system) all are uniform.

    Attributes:
      ratio: share of masked tokens, in (0, 1).
      hard_share: share of the masked tokens that is guided at the end of the training, in [0, 1].
      epochs: if given, the share grows in so many equal steps, the first at the start, as the
        published code has it; None: continuously.
    """

    ratio: float = 0.75
    hard_share: float = 0.5
    epochs: int | None = None

    def check(self, grid: TokenGrid) -> None:
        """Refuses a ratio that masks all or none, and shares outside [0, 1]."""
        hidden = grid.num_tokens - num_kept(grid.num_tokens, self.ratio)
        check_hidden(hidden, grid.num_tokens, f"ratio={self.ratio}")
        if not 0 <= self.hard_share <= 1:
            raise UserError(f"system.mask.hard_share must lie in [0, 1], not {self.hard_share}.")
        if self.epochs is not None and self.epochs < 1:
            raise UserError(f"system.mask.epochs must be positive, not {self.epochs}.")

    def num_hard(self, hidden: int, progress: jax.Array | float) -> jax.Array:
        """Returns how many of `hidden` masked tokens are guided, int32 []."""
        # The small terms keep whole products from losing one to rounding.
        if self.epochs is not None:
            epoch = jnp.floor(jnp.asarray(progress) * self.epochs + 1e-3)
            progress = jnp.minimum(epoch + 1, self.epochs) / self.epochs
        share = jnp.clip(jnp.asarray(progress, jnp.float32), 0.0, 1.0) * self.hard_share
        return jnp.floor(hidden * share + 1e-4).astype(jnp.int32)

    def __call__(
        self,
        rng: jax.Array,
        batch_size: int,
        grid: TokenGrid,
        scores: jax.Array | None = None,
        progress: jax.Array | float = 0.0,
    ) -> Mask:
        """Draws a mask per example, the share `num_hard` of it by `scores` [B, N]."""
        keep = num_kept(grid.num_tokens, self.ratio)
        noise = jax.random.uniform(rng, (batch_size, grid.num_tokens))
        if scores is None:
            return guided_mask(noise, noise, keep, jnp.int32(0))
        return guided_mask(scores, noise, keep, self.num_hard(grid.num_tokens - keep, progress))

"""One budget of visible tokens over several modalities (MultiMAE: Bachmann et al., 2022)."""

import dataclasses
from collections.abc import Mapping, Sequence

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from maskjax.errors import UserError
from maskjax.masking.mask import Mask, mask_from_scores
from maskjax.tokens import TokenGrid


@flax.struct.dataclass
class Hidden:
    """Which tokens of one modality are hidden, where their number varies from example to example.

    Attributes:
      is_masked: bool [B, N] in raster order.
    """

    is_masked: jax.Array


@flax.struct.dataclass
class BudgetMask:
    """The visible tokens of several modalities, whose total is static.

    Attributes:
      joint: `Mask` over the concatenation of all modalities, in the order of the mapping that the
        sampler was given; `keep` [B, budget] mixes modalities.
      modalities: {name: Hidden}, the same cut into modalities.
      offsets: {name: place of its first token in the concatenation}, static.
    """

    joint: Mask
    modalities: dict[str, Hidden]
    offsets: tuple[tuple[str, int], ...] = flax.struct.field(pytree_node=False)


def round_shares(shares: jax.Array, tokens: int) -> jax.Array:
    """Returns the tokens that each modality would get, int32 [B, T]; the sum may miss `tokens`."""
    return jnp.round(shares * tokens).astype(jnp.int32)  # half to even, as published


def budget_mask(
    shares: jax.Array,
    noises: Sequence[jax.Array],
    joint_noise: jax.Array,
    tokens: int,
) -> Mask:
    """Chooses exactly `tokens` visible tokens, following shares as closely as rounding allows.

    A surplus is dropped at random; a shortfall (rounding, or a modality with fewer tokens than its
    share) is filled by random tokens of any modality.

    Args:
      shares: float [B, T], rows sum to one.
      noises: T arrays [B, N_t], uniform: which tokens of a modality are proposed.
      joint_noise: float [B, sum N_t], uniform in [0, 1): the order of the chosen tokens.
      tokens: the budget, static.

    Returns:
      Mask over the concatenation.
    """
    counts = round_shares(shares, tokens)
    # The published code compares the sorting indices themselves, a permutation like any other.
    proposed = [jnp.argsort(noise, axis=-1) < counts[:, t, None] for t, noise in enumerate(noises)]
    hidden = ~jnp.concatenate(proposed, axis=1)
    return mask_from_scores(hidden + joint_noise, tokens)


@dataclasses.dataclass(frozen=True)
class DirichletBudget:
    """Keeps a fixed number of tokens; the shares of the modalities are Dirichlet distributed.

    Attributes:
      tokens: visible tokens of an example, over all modalities.
      alpha: concentration; 1 is uniform over all shares, smaller ones are more one-sided.
      subsets: first choose, uniformly, a non-empty subset of the modalities; the others get a
        concentration of 1e-5, that is (almost) nothing.
    """

    tokens: int = 98
    alpha: float = 1.0
    subsets: bool = False

    def check(self, grids: Mapping[str, TokenGrid]) -> None:
        """Refuses a budget that leaves nothing to see or nothing to predict."""
        total = sum(grid.num_tokens for grid in grids.values())
        if not 0 < self.tokens < total:
            raise UserError(
                f"system.mask.tokens={self.tokens} must be between 1 and {total - 1}: the "
                f"modalities {', '.join(grids)} have {total} tokens."
            )
        if self.alpha <= 0:
            raise UserError(f"system.mask.alpha must be positive, not {self.alpha}.")

    def __call__(
        self,
        rng: jax.Array,
        batch_size: int,
        grids: Mapping[str, TokenGrid],
        scores: jax.Array | None = None,
        progress: jax.Array | float = 0.0,
    ) -> BudgetMask:
        """Draws a mask per example; `scores` and `progress` have no influence.

        Args:
          rng: a key.
          batch_size: B.
          grids: geometry of each modality, by name.
          scores: ignored.
          progress: ignored.
        """
        del scores, progress
        keys = jax.random.split(rng, len(grids) + 2)
        counts = [grid.num_tokens for grid in grids.values()]
        shares = self.draw_shares(keys[0], batch_size, len(grids))
        noises = [
            jax.random.uniform(key, (batch_size, n))
            for key, n in zip(keys[2:], counts, strict=True)
        ]
        joint_noise = jax.random.uniform(keys[1], (batch_size, sum(counts)))
        return split_budget(budget_mask(shares, noises, joint_noise, self.tokens), grids)

    def draw_shares(self, rng: jax.Array, batch_size: int, modalities: int) -> jax.Array:
        """Returns float [B, T], rows sum to one."""
        subset_rng, rng = jax.random.split(rng)
        alpha = jnp.full((batch_size, modalities), self.alpha)
        if self.subsets:
            # Binary numbers 1 .. 2^T - 1 are the non-empty subsets.
            chosen = jax.random.randint(subset_rng, (batch_size, 1), 1, 2**modalities)
            in_subset = (chosen >> jnp.arange(modalities)[None, :]) & 1
            alpha = alpha * in_subset + 1e-5
        return jax.random.dirichlet(rng, alpha)


def split_budget(joint: Mask, grids: Mapping[str, TokenGrid]) -> BudgetMask:
    """Cuts the mask of a concatenation into those of its modalities."""
    ends = np.cumsum([grid.num_tokens for grid in grids.values()])
    parts = jnp.split(joint.is_masked, ends[:-1], axis=1)
    starts = [0, *(int(end) for end in ends[:-1])]
    return BudgetMask(
        joint=joint,
        modalities={name: Hidden(part) for name, part in zip(grids, parts, strict=True)},
        offsets=tuple(zip(grids, starts, strict=True)),
    )

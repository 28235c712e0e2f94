"""Spans of a sequence (wav2vec 2.0: Baevski et al., 2020; HuBERT: Hsu et al., 2021)."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

from maskjax.errors import UserError
from maskjax.masking.counts import check_hidden
from maskjax.masking.mask import Mask, mask_from_hidden, mask_from_scores
from maskjax.tokens import TokenGrid


def expected_hidden(num_tokens: int, spans: float, length: int) -> float:
    """Returns the mean number of tokens that `spans` spans of `length` tokens cover together.

    Spans start at distinct places, uniform over all where they fit whole; they may overlap.
    A fractional number of spans means the next integer with that probability.
    """
    starts = num_tokens - length + 1
    place = np.arange(num_tokens)
    # Number of starts whose span covers a token: fewer near the two ends.
    covering = np.minimum(place, starts - 1) - np.maximum(place - length + 1, 0) + 1

    def covered(n: int) -> float:
        missed = [
            math.comb(starts - int(c), n) / math.comb(starts, n) if n <= starts else 0.0
            for c in covering
        ]
        return num_tokens - sum(missed)

    low = math.floor(spans)
    share = spans - low
    return (1 - share) * covered(low) + (share * covered(low + 1) if share else 0.0)


def span_mask(start_noise: jax.Array, trim_noise: jax.Array, length: int, hidden: int) -> Mask:
    """Covers spans, one after the other, until `hidden` tokens are masked.

    The spans start in the order of the noise. What the last span covers too much is left visible at
    random.

    Args:
      start_noise: float [B, N - length + 1], uniform: one for every possible start.
      trim_noise: float [B, N], uniform in [0, 1).
      length: of a span, in tokens.
      hidden: number of masked tokens, static.

    Returns:
      Mask with kept and dropped tokens in raster order.
    """
    num_tokens = trim_noise.shape[1]
    turn = jnp.argsort(jnp.argsort(start_noise, axis=-1), axis=-1)
    # A token is covered by the first of the spans that start at most length - 1 places before it.
    reached = jax.lax.reduce_window(
        turn,
        jnp.int32(start_noise.shape[1]),
        jax.lax.min,
        window_dimensions=(1, length),
        window_strides=(1, 1),
        padding=((0, 0), (length - 1, length - 1)),
    )
    last_first = -(reached + trim_noise)
    keep = num_tokens - hidden
    return mask_from_hidden(mask_from_scores(last_first, keep).is_masked, keep)


@dataclasses.dataclass(frozen=True)
class Spans:
    """Hides spans of equal length that may overlap, and of those an exact number of tokens.

    Published: int(`probability` N / `length` + u) spans with u uniform in [0, 1), at least
    `min_spans`; the rows of a batch are then trimmed, by leaving random tokens visible, to the
    number of hidden tokens of the shortest. Here that number is fixed: the mean number that so many
    spans cover. Spans are laid until it is reached, the last one is trimmed.

    Attributes:
      probability: share of tokens that spans would hide if they did not overlap (0.8 in HuBERT,
        0.65 in wav2vec 2.0).
      length: of a span, in tokens.
      min_spans: least number of spans.
      count: number of hidden tokens; None: the mean.
    """

    probability: float = 0.8
    length: int = 10
    min_spans: int = 2
    count: int | None = None

    def num_hidden(self, num_tokens: int) -> int:
        """Returns how many of `num_tokens` tokens are hidden."""
        if self.count is not None:
            return self.count
        spans = max(self.probability * num_tokens / self.length, self.min_spans)
        return round(expected_hidden(num_tokens, spans, self.length))

    def check(self, grid: TokenGrid) -> None:
        """Refuses more than one axis, spans that do not fit, and counts of all or none."""
        if len(grid.shape) != 1:
            raise UserError(f"Spans need one axis of tokens, not {len(grid.shape)}.")
        n = grid.num_tokens
        if not 0 < self.length <= n:
            raise UserError(
                f"A span of {self.length} tokens does not fit into {n}: change system.mask.length."
            )
        if self.count is None and not 0 < self.probability <= 1:
            raise UserError(f"system.mask.probability must lie in (0, 1], not {self.probability}.")
        setting = f"probability={self.probability}" if self.count is None else f"count={self.count}"
        check_hidden(self.num_hidden(n), n, setting)

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
        n = grid.num_tokens
        start_rng, trim_rng = jax.random.split(rng)
        starts = jax.random.uniform(start_rng, (batch_size, n - self.length + 1))
        trim = jax.random.uniform(trim_rng, (batch_size, n))
        return span_mask(starts, trim, self.length, self.num_hidden(n))

"""Masks of whole times and whole frequencies of a spectrogram (Audio-MAE: Huang et al., 2022)."""

import dataclasses

import jax

from maskjax.errors import UserError
from maskjax.masking.mask import Mask, mask_from_hidden, mask_from_scores
from maskjax.masking.uniform import num_kept
from maskjax.tokens import TokenGrid


def hide_times_and_frequencies(
    time_noise: jax.Array, frequency_noise: jax.Array, times: int, frequencies: int
) -> Mask:
    """Keeps the tokens whose time AND frequency are kept, in raster order.

    Args:
      time_noise: float [B, T]; the `times` lowest are kept.
      frequency_noise: float [B, F]; the `frequencies` lowest are kept.
      times: number of kept times, static.
      frequencies: number of kept frequencies, static.

    Returns:
      a mask of T F tokens with times * frequencies visible.
    """
    late = mask_from_scores(time_noise, times).is_masked
    high = mask_from_scores(frequency_noise, frequencies).is_masked
    hidden = late[:, :, None] | high[:, None, :]
    return mask_from_hidden(hidden.reshape(hidden.shape[0], -1), times * frequencies)


@dataclasses.dataclass(frozen=True)
class TimeFrequency:
    """Masks a share of the times and a share of the frequencies, each drawn per example.

    With `time=0` or `frequency=0` it masks along the other axis alone. The grid's first axis is
    time, its second frequency. The defaults hide 1 - 0.4 x 0.5 = 80 % of the tokens.

    Attributes:
      time: share of hidden times, in [0, 1).
      frequency: share of hidden frequencies, in [0, 1).
    """

    time: float = 0.6
    frequency: float = 0.5

    def check(self, grid: TokenGrid) -> None:
        """Refuses grids of other than two axes, and shares that hide everything or nothing."""
        if len(grid.shape) != 2:
            raise UserError(
                "masking.TimeFrequency needs tokens on two axes, time and frequency, but there are "
                f"{len(grid.shape)}: use another mask, or a patch lower than the spectrogram."
            )
        kept = self._kept(grid)
        if min(kept) < 1 or kept == tuple(grid.shape):
            what = "all" if min(kept) < 1 else "none"
            raise UserError(
                f"Hiding {self.time} of {grid.shape[0]} times and {self.frequency} of "
                f"{grid.shape[1]} frequencies masks {what} of the tokens: change "
                "system.mask.time and system.mask.frequency."
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
        noise = [
            jax.random.uniform(key, (batch_size, n))
            for key, n in zip(jax.random.split(rng), grid.shape, strict=True)
        ]
        return hide_times_and_frequencies(*noise, *self._kept(grid))

    def _kept(self, grid: TokenGrid) -> tuple[int, int]:
        return num_kept(grid.shape[0], self.time), num_kept(grid.shape[1], self.frequency)

"""Masks that threshold coloured noise (ColorMAE: Hinojosa et al., 2024, section 3)."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from maskjax.errors import UserError
from maskjax.masking.counts import check_hidden
from maskjax.masking.mask import Mask, mask_from_scores
from maskjax.masking.uniform import num_kept
from maskjax.tokens import TokenGrid

COLOURS = ("red", "blue", "green", "purple")


def gaussian_blur(noise: jax.Array, sigma: float) -> jax.Array:
    """Blurs the last two axes, which wrap around, by a Gaussian of `sigma` places.

    The kernel is sampled at whole places out to four `sigma` and sums to one.
    """
    reach = np.arange(-int(4 * sigma + 0.5), int(4 * sigma + 0.5) + 1)
    kernel = np.exp(-0.5 * (reach / sigma) ** 2)
    kernel /= kernel.sum()

    def gain(frequencies: np.ndarray) -> np.ndarray:
        return (kernel * np.cos(2 * np.pi * frequencies[:, None] * reach)).sum(axis=1)

    height, width = noise.shape[-2:]
    gains = np.outer(gain(np.fft.fftfreq(height)), gain(np.fft.rfftfreq(width)))
    gains = jnp.asarray(gains, jnp.float32).reshape((1,) * (noise.ndim - 2) + gains.shape)
    return jnp.fft.irfft2(jnp.fft.rfft2(noise) * gains, (height, width))


def colour_noise(noise: jax.Array, colour: str, sigma: tuple[float, float]) -> jax.Array:
    """Filters white noise and stretches every pattern to [0, 1].

    red: low-pass, G(s1) * W, large blobs; blue: high-pass, W - G(s1) * W, evenly spread; green:
    band-pass, (G(s1) - G(s2)) * W, medium blobs; purple: band-stop, W minus green.

    Args:
      noise: float [..., H, W], white.
      colour: one of `COLOURS`.
      sigma: (s1, s2) in places, s1 < s2; red and blue use s1 alone.
    """
    low = gaussian_blur(noise, sigma[0])
    if colour == "red":
        coloured = low
    elif colour == "blue":
        coloured = noise - low
    else:
        coloured = low - gaussian_blur(noise, sigma[1])
        if colour == "purple":
            coloured = noise - coloured
    coloured = coloured - coloured.min(axis=(-2, -1), keepdims=True)
    # Never negative: windows are divided by their maximum, which must not change the order.
    return coloured / coloured.max(axis=(-2, -1), keepdims=True)


def cut_windows(patterns: jax.Array, draws: jax.Array, window: tuple[int, ...]) -> jax.Array:
    """Cuts one window out of every pattern, flips it and divides it by its maximum.

    Args:
      patterns: float [n, H, W], not negative.
      draws: int [n, 4]: top, left, horizontal flip, vertical flip (0 or 1).
      window: (h, w).

    Returns:
      float [n, h, w].
    """

    def cut(pattern: jax.Array, draw: jax.Array) -> jax.Array:
        piece = jax.lax.dynamic_slice(pattern, (draw[0], draw[1]), window)
        piece = jnp.where(draw[2] > 0, piece[:, ::-1], piece)
        piece = jnp.where(draw[3] > 0, piece[::-1, :], piece)
        # Behind the barrier XLA divides; it would multiply by an inverse, which rounds twice.
        return piece / jax.lax.optimization_barrier(jnp.full(window, piece.max()))

    return jax.vmap(cut)(patterns, draws)


def shared_windows(
    bank: jax.Array, draws: jax.Array, batch_size: int, window: tuple[int, ...]
) -> jax.Array:
    """Cuts the windows of a batch as published: one crop and one pair of flips per pass.

    A pass goes through the bank from its first pattern; the last pass takes what is still needed.

    Args:
      bank: float [n, H, W].
      draws: int [ceil(B / n), 4]: those of each pass, see `cut_windows`.
      batch_size: B.
      window: (h, w).

    Returns:
      float [B, h, w].
    """
    place = jnp.arange(batch_size)
    return cut_windows(bank[place % bank.shape[0]], draws[place // bank.shape[0]], window)


@dataclasses.dataclass(frozen=True)
class Coloured:
    """Keeps the tokens under the strongest values of filtered noise.

    The published noise files cannot be generated again: neither their filters nor their size are
    known, so `sigma` and `bank_size` are choices to judge by the look of the masks.

    Attributes:
      ratio: share of masked tokens, in (0, 1).
      colour: "red", "blue", "green" or "purple".
      sigma: widths of the two Gaussians in places of the token grid; red and blue use the first.
      bank: number of patterns, computed from `seed` (inside the step, which costs less than the
        masks of a batch are worth); 0: a fresh pattern for every example.
      bank_size: height and width of a pattern, in places of the token grid.
      shared: True: the published way, one crop and flips for a whole pass of the bank, always from
        its first pattern. False: pattern, crop and flips are drawn for each example.
      seed: of the bank.
    """

    ratio: float = 0.75
    colour: str = "green"
    sigma: tuple[float, float] = (0.5, 2.0)
    bank: int = 3072
    bank_size: tuple[int, int] = (64, 64)
    shared: bool = True
    seed: int = 0

    def check(self, grid: TokenGrid) -> None:
        """Refuses unknown colours, windows larger than the bank, and impossible ratios."""
        if self.colour not in COLOURS:
            raise UserError(
                f"system.mask.colour must be one of {', '.join(COLOURS)}, not '{self.colour}'."
            )
        if len(grid.shape) != 2:
            raise UserError(f"Coloured masks need two axes of tokens, not {len(grid.shape)}.")
        if any(n > size for n, size in zip(grid.shape, self.bank_size, strict=True)):
            raise UserError(
                f"The masks of {grid.shape[0]}x{grid.shape[1]} tokens are larger than the noise: "
                "enlarge system.mask.bank_size."
            )
        if not 0 < self.sigma[0] < self.sigma[1]:
            raise UserError(
                f"system.mask.sigma must be two widths, the narrow one first, not {self.sigma}."
            )
        hidden = grid.num_tokens - num_kept(grid.num_tokens, self.ratio)
        check_hidden(hidden, grid.num_tokens, f"ratio={self.ratio}")

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
        noise_rng, pattern_rng, draw_rng = jax.random.split(rng, 3)
        patterns = self.bank or batch_size
        white = jax.random.uniform(
            jax.random.key(self.seed) if self.bank else noise_rng, (patterns, *self.bank_size)
        )
        bank = colour_noise(white, self.colour, self.sigma)
        if self.shared and self.bank:
            draws = self._draw(draw_rng, -(-batch_size // self.bank), grid)
            windows = shared_windows(bank, draws, batch_size, grid.shape)
        else:
            if self.bank:
                bank = bank[jax.random.randint(pattern_rng, (batch_size,), 0, self.bank)]
            windows = cut_windows(bank, self._draw(draw_rng, batch_size, grid), grid.shape)
        keep = num_kept(grid.num_tokens, self.ratio)
        return mask_from_scores(-windows.reshape(batch_size, -1), keep)

    def _draw(self, rng: jax.Array, n: int, grid: TokenGrid) -> jax.Array:
        """Returns crops and flips, int32 [n, 4]."""
        highest = [s - t + 1 for s, t in zip(self.bank_size, grid.shape, strict=True)]
        limits = jnp.asarray([*highest, 2, 2])[None, :]
        return jax.random.randint(rng, (n, 4), 0, limits)

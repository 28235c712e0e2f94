"""Bands of a spectrogram that a network does not hear: some frames, and some frequencies."""

import dataclasses

import jax
import jax.numpy as jnp

from maskjax.data.audio import LogMel
from maskjax.data.inputs import Input
from maskjax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Bands:
    """Puts a constant into a stretch of frames and into a stretch of frequencies.

    One of each for every example, as in SpecAugment (Park et al., 2019, arXiv 1904.08779): the
    length l is uniform in [0, greatest), the start uniform in [0, extent - l), and both are then
    rounded down.

    Attributes:
      frames: greatest length along time, not reached; 0: no frames.
      frequencies: greatest number of mel bands, not reached; 0: none.

    Raises:
      UserError: a negative length, or nothing to set.
    """

    frames: int = 192
    frequencies: int = 48

    def __post_init__(self) -> None:
        if min(self.frames, self.frequencies) < 0 or not (self.frames or self.frequencies):
            raise UserError(
                f"data.Bands has {self.frames} frames and {self.frequencies} frequencies: give "
                "numbers of which none is negative and one is positive; to set no bands, leave "
                "them out."
            )

    def check(self, data: Input) -> None:
        """Raises a UserError if an input is no spectrogram [frames, mels], or a smaller one."""
        if not isinstance(data, LogMel) or data.axes != 2:
            raise UserError(
                "system.bands are those of a spectrogram with two axes, which the input is not: "
                "set them to None, or choose data.LogMel."
            )
        frames, mels = data.size
        if self.frames > frames or self.frequencies > mels:
            raise UserError(
                f"data.Bands sets up to {self.frames} frames and {self.frequencies} frequencies, "
                f"but the spectrogram has {frames} and {mels}: lower system.bands."
            )

    def __call__(self, rng: jax.Array, count: int, size: tuple[int, ...]) -> jax.Array:
        """Draws the bands of a batch.

        Args:
          rng: key; every draw follows from it.
          count: number of examples B.
          size: (frames, mels) of the spectrogram.

        Returns:
          int32 [B, 2, 2]: start and end (not in it) along time, then along frequency.
        """
        uniform = jax.random.uniform(rng, (count, 2, 2))
        extent = jnp.array(size, jnp.float32)[None, :]
        length = uniform[..., 0] * jnp.array([self.frames, self.frequencies], jnp.float32)[None, :]
        start = jnp.floor(uniform[..., 1] * (extent - length))
        return jnp.stack([start, start + jnp.floor(length)], axis=-1).astype(jnp.int32)


def set_bands(spectrograms: jax.Array, bands: jax.Array, value: float) -> jax.Array:
    """Puts a value into bands.

    Args:
      spectrograms: [B, frames, mels, 1].
      bands: int [B, 2, 2], as `Bands` draws them.
      value: what stands there afterwards.

    Returns:
      spectrograms of the same shape.
    """
    extents = spectrograms.shape[1:3]
    late, high = (
        (jnp.arange(extent)[None, :] >= bands[:, axis, :1])
        & (jnp.arange(extent)[None, :] < bands[:, axis, 1:])
        for axis, extent in enumerate(extents)
    )
    inside = late[:, :, None] | high[:, None, :]
    return jnp.where(inside[..., None], value, spectrograms)

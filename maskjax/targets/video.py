"""Cubes of a clip as the target, normalised per channel (VideoMAE: Tong et al., 2022)."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from maskjax.errors import UserError
from maskjax.tokens import TokenGrid


@dataclasses.dataclass(frozen=True)
class NormalisedChannels:
    """Each channel of a token minus its mean, divided by its standard deviation.

    Unlike `NormalisedPixels`, the statistics are those of one channel over the pixels of the token,
    the values are in [0, 1] before, and epsilon is added to the unbiased standard deviation instead
    of the variance: what VideoMAE's code does.

    Attributes:
      channels: of the input; the fastest axis of a token's values.
      epsilon: added to the standard deviation, in units of [0, 1].
    """

    channels: int = 3
    epsilon: float = 1e-6

    uses_target_statistics = True

    def check(self, grid: TokenGrid) -> None:
        """Refuses another number of channels, and tokens of one pixel."""
        if grid.channels != self.channels:
            raise UserError(
                f"The target normalises {self.channels} channels but the input has "
                f"{grid.channels}: set channels={grid.channels} of targets.NormalisedChannels."
            )
        if grid.values_per_token < 2 * self.channels:
            raise UserError(
                "Normalised channels need more than one pixel per token, since the variance of one "
                "value is zero: use larger patches or targets.Pixels."
            )

    def size(self, grid: TokenGrid) -> int:
        """Returns P."""
        return grid.values_per_token

    def __call__(self, out: Mapping[str, Any], grid: TokenGrid) -> jax.Array:
        """Returns float32 [B, N, P]: (frame, row, column, channel) within a token."""
        del grid
        x = self._split(out["pixels"])
        mean, std = _statistics(x)
        return ((x - mean) / (std + self.epsilon)).reshape(out["pixels"].shape)

    def invert(self, prediction: jax.Array, out: Mapping[str, Any]) -> jax.Array:
        """Returns a prediction in units of the patches, with each channel's TRUE mean and std.

        Patches and pixels differ by a factor and a constant per channel, so the statistics of the
        patches serve as well, up to epsilon.
        """
        mean, std = _statistics(self._split(out["patches"]))
        return (self._split(prediction) * std + mean).reshape(prediction.shape)

    def _split(self, x: jax.Array) -> jax.Array:
        """[B, N, P] -> float32 [B, N, P / C, C]."""
        return x.astype(jnp.float32).reshape(*x.shape[:2], -1, self.channels)


def _statistics(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    mean = x.mean(axis=2, keepdims=True)
    return mean, x.std(axis=2, keepdims=True, ddof=1)

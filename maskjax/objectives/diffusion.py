"""Gaussian noise of a diffusion model, by time (Ho et al., 2020; Nichol & Dhariwal, 2021)."""

import dataclasses
import functools
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from maskjax.errors import UserError


@dataclasses.dataclass(frozen=True)
class NoiseSchedule:
    """How much of the data is left at each time: x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) noise.

    Attributes:
      form: "cosine" (for pixels), or "linear" in beta (for latents).
      steps: T; times are 0 .. T - 1, of which 0 already has some noise.
    """

    form: Literal["cosine", "linear"] = "cosine"
    steps: int = 1000

    def __post_init__(self) -> None:
        if self.form not in ("cosine", "linear"):
            raise UserError(f"A noise schedule is 'cosine' or 'linear', not '{self.form}'.")
        if self.steps < 2:
            raise UserError(f"A noise schedule of {self.steps} steps: give at least two.")

    @functools.cached_property
    def levels(self) -> np.ndarray:
        """float64 [T], a_t (alpha bar): the product of 1 - beta up to t."""
        if self.form == "linear":
            scale = 1000 / self.steps
            betas = np.linspace(scale * 1e-4, scale * 0.02, self.steps)
        else:
            t = np.arange(self.steps + 1) / self.steps
            kept = np.cos((t + 0.008) / 1.008 * np.pi / 2) ** 2
            betas = np.minimum(1 - kept[1:] / kept[:-1], 0.999)
        return np.cumprod(1 - np.minimum(betas, 0.999))

    def add_noise(self, x: jax.Array, time: jax.Array, noise: jax.Array) -> jax.Array:
        """Returns x_t.

        Args:
          x: float32 [B, ...], the data.
          time: int [B].
          noise: standard normal, of the shape of x.
        """
        shape = (x.shape[0], *(1,) * (x.ndim - 1))
        # Square roots in float64, rounded once.
        data, rest = (
            jnp.asarray(v, jnp.float32)[time].reshape(shape)
            for v in (np.sqrt(self.levels), np.sqrt(1 - self.levels))
        )
        return data * x + rest * noise

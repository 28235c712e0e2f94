"""A number of every record, for evaluators: a similarity score, an age, a speed."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


@dataclasses.dataclass(frozen=True)
class Scalar:
    """One number per example, not seen by models; evaluators read it at the path `batch.NAME`.

    Attributes:
      optional: whether records may lack it.
    """

    optional: bool = False

    size = ()
    channels = 1
    view = "scalar"
    dtype = np.dtype(np.float32)

    def shape(self, train: bool) -> tuple[int, ...]:
        """Returns ()."""
        del train
        return ()

    def read(self, value: Any, rng: np.random.Generator | None) -> np.ndarray:
        """A number -> float32 []."""
        del rng
        return np.asarray(value, np.float32)

    def on_device(self, rng: jax.Array, values: jax.Array) -> jax.Array:
        """Unchanged."""
        del rng
        return values

    def normalise(self, values: jax.Array) -> jax.Array:
        """float32 [B] -> float32 [B, 1]."""
        return jnp.asarray(values, jnp.float32)[..., None]

    def denormalise(self, view: jax.Array) -> jax.Array:
        """Unchanged."""
        return view

    def raw(self, values: np.ndarray) -> np.ndarray:
        """No feature: [B] -> [B, 0]."""
        return np.zeros((len(values), 0), np.float32)

    def accept(self, values: Any) -> None:
        """Anything."""

"""What inputs have in common that are never varied: numbers, sets of classes, text."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


class Unvaried:
    """The part of an `Input` that is the same for all values that are used as they were read.

    A batch has them at the path `batch.NAME`. They are no features of a baseline, and anything is
    accepted, unless an input says otherwise.
    """

    channels = 1

    @property
    def size(self) -> tuple[int, ...]:
        """Extent of the values of an example: none, if it is a single one."""
        return ()

    def shape(self, train: bool) -> tuple[int, ...]:
        """Returns `size`, in training and evaluation."""
        del train
        return self.size

    def on_device(self, rng: jax.Array, values: jax.Array) -> jax.Array:
        """Unchanged."""
        del rng
        return values

    def normalise(self, values: jax.Array) -> jax.Array:
        """[B, *size] -> float32 [B, *size, 1]."""
        return jnp.asarray(values, jnp.float32)[..., None]

    def denormalise(self, view: jax.Array) -> jax.Array:
        """Unchanged."""
        return view

    def raw(self, values: np.ndarray) -> np.ndarray:
        """No feature: [B, *size] -> [B, 0]."""
        return np.zeros((len(values), 0), np.float32)

    def accept(self, values: Any) -> None:
        """Anything."""

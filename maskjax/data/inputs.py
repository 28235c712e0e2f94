"""What an input is: how one modality of a record becomes an array, and what a model sees of it.

An input has three forms. The *record's value* is whatever the source gives (an image of any size, a
waveform, a sentence). The *batch's array* is its compact form of static shape (uint8 pixels, int16
samples, token ids). The *model's view* is float32 [B, *size, channels], normalised.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import jax
import numpy as np


class Input(Protocol):
    """One modality. Frozen, can be pickled; arguments are checked at construction.

    All inputs of one example draw from equal generators and keys: aligned inputs (an image and its
    depth map) with equal augmentation are cropped alike.

    Attributes:
      size: extent of the model's view along its axes, e.g. (height, width).
      channels: values per place.
      dtype: of the batch's array.
      optional: whether records may lack it. If so, the batch has `_has_NAME` bool [B], False where
        a record lacks it; its values are then zero.
      view: how reports draw it: "image", "video", "spectrogram", "points" or "text".
    """

    size: tuple[int, ...]
    channels: int
    dtype: np.dtype
    optional: bool
    view: str

    def shape(self, train: bool) -> tuple[int, ...]:
        """Returns the shape of one example in a batch for training, or for evaluation."""
        ...

    def read(self, value: Any, rng: np.random.Generator | None) -> np.ndarray:
        """Brings the value of one record to `shape`, on the host.

        Args:
          value: of the record.
          rng: for augmentation on the host; None in evaluation.

        Raises:
          UserError: a mistake in the configuration, the same for many records.
          Exception: of any other kind, if this one record cannot be read.
        """
        ...

    def on_device(self, rng: jax.Array, values: jax.Array) -> jax.Array:
        """Augments a batch of training inside the step: [B, *shape(True)] -> [B, *shape(False)]."""
        ...

    def normalise(self, values: jax.Array) -> jax.Array:
        """Returns the model's view, float32 [B, *size, channels], of a batch's array.

        The array may have other extents than `shape`, where a model can encode them.
        """
        ...

    def denormalise(self, view: jax.Array) -> jax.Array:
        """Inverts `normalise` as far as pictures need it: values in [0, 1], not clipped."""
        ...

    def raw(self, values: np.ndarray) -> np.ndarray:
        """Returns the data themselves as features, float32 [B, F]: the baseline of every probe."""
        ...

    def accept(self, values: Any) -> None:
        """Raises a UserError if a user's array [B, ...] is not what `encode` takes."""
        ...


def batch_shapes(inputs: Mapping[str, Input], batch_size: int, train: bool) -> dict[str, Any]:
    """Returns the arrays of a batch as `ShapeDtypeStruct`s, as the pipeline gives them."""
    shapes = {
        name: jax.ShapeDtypeStruct((batch_size, *each.shape(train)), each.dtype)
        for name, each in inputs.items()
    }
    flags = [f"_has_{name}" for name, each in inputs.items() if each.optional]
    return shapes | {n: jax.ShapeDtypeStruct((batch_size,), bool) for n in ("_mask", *flags)}


def augment_batch(
    inputs: Mapping[str, Input], rng: jax.Array, batch: Mapping[str, jax.Array]
) -> dict[str, jax.Array]:
    """Augments every input of a training batch on the device, with the same key."""
    return {**batch, **{name: each.on_device(rng, batch[name]) for name, each in inputs.items()}}

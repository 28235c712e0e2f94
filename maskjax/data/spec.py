"""What the model sees of an image: size, channels and scale of the values."""

import dataclasses

import jax
import jax.numpy as jnp

from maskjax.errors import UserError


@dataclasses.dataclass(frozen=True)
class ImageSpec:
    """Size and normalisation of images.

    Attributes:
      size: height and width in pixels.
      channels: number of channels.
      mean: per channel, of pixels scaled to [0, 1].
      std: per channel, of pixels scaled to [0, 1].

    Raises:
      UserError: values that do not fit together.
    """

    size: tuple[int, int]
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self):
        if len(self.size) != 2 or not all(isinstance(n, int) and n > 0 for n in self.size):
            raise UserError(
                f"data.image_size is {self.size}: give height and width as two positive integers."
            )
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != self.channels:
                raise UserError(
                    f"data.{name} has {len(values)} values but data.channels is {self.channels}: "
                    f"give one value per channel."
                )
        if min(self.std) <= 0:
            raise UserError(f"data.std is {self.std}: every value has to be positive.")

    def normalise(self, images: jax.Array) -> jax.Array:
        """Scales pixels to zero mean and unit variance.

        Args:
          images: uint8 or floating [..., C], values in [0, 255].

        Returns:
          float32 of the same shape.
        """
        images = jnp.asarray(images, jnp.float32) / 255.0
        mean, std = self._statistics(images.ndim)
        return (images - mean) / std

    def denormalise(self, images: jax.Array) -> jax.Array:
        """Inverts `normalise`, up to the factor 255.

        Args:
          images: floating [..., C], normalised.

        Returns:
          float32 of the same shape. Pixels are in [0, 1]; predictions may exceed it, nothing is
          clipped.
        """
        images = jnp.asarray(images, jnp.float32)
        mean, std = self._statistics(images.ndim)
        return images * std + mean

    def _statistics(self, ndim: int) -> tuple[jax.Array, jax.Array]:
        """Returns mean and std along the last of `ndim` axes."""
        shape = (1,) * (ndim - 1) + (self.channels,)
        mean, std = (jnp.asarray(v, jnp.float32).reshape(shape) for v in (self.mean, self.std))
        return mean, std

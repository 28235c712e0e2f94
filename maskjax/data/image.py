"""Images as an input: size, channels, scale of the values, and augmentation."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from maskjax.data import decode
from maskjax.data.augment import Augment
from maskjax.data.erase import Erase
from maskjax.data.multi_scale import MultiScaleCrop
from maskjax.data.rand_augment import RandAugment
from maskjax.errors import UserError

# Number of the key of erasing: the first 2 B that come from the same key belong to `Augment`.
ERASING = 2**31 + 1


@dataclasses.dataclass(frozen=True)
class Image:
    """Images of one size. Records give uint8 [h, w, c] of any size.

    Attributes:
      size: height and width in pixels that the model sees.
      channels: number of channels.
      mean: per channel, of pixels scaled to [0, 1].
      std: per channel; `python -m maskjax.statistics` computes both.
      decode_size: height and width of the images that the device augments; None: `size`.
      augment: crop, shift and flip of training images.
      optional: whether records may lack it.
      rand_augment: distortions of training images after `augment`; None: none. Only where
        `augment.place` is the host.
      erase: rectangles of noise in training images, drawn on the device at last; None: none.
      eval_crop: share of the height and width that is seen in evaluation: the image is fitted to
        `size` / `eval_crop`, and the centre is taken. 224 / 256 is usual for ImageNet.

    Raises:
      UserError: values that do not fit together.
    """

    size: tuple[int, int] = (224, 224)
    channels: int = 3
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    decode_size: tuple[int, ...] | None = None
    augment: Augment | MultiScaleCrop = dataclasses.field(default_factory=Augment)
    optional: bool = False
    rand_augment: RandAugment | None = None
    erase: Erase | None = None
    eval_crop: float = 1.0

    view = "image"
    dtype = np.dtype(np.uint8)

    def __post_init__(self) -> None:
        for name, size in (("size", self.size), ("decode_size", self.decode_size or self.size)):
            if len(size) != 2 or not all(isinstance(n, int) and n > 0 for n in size):
                raise UserError(
                    f"The {name} of the images is {size}: give height and width as two positive "
                    "integers."
                )
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != self.channels:
                raise UserError(
                    f"The {name} of the images has {len(values)} values but they have "
                    f"{self.channels} channels: give one value per channel."
                )
        if min(self.std) <= 0:
            raise UserError(f"The std of the images is {self.std}: every value has to be positive.")
        self.augment.check_size(tuple(self.size))
        if not 0 < self.eval_crop <= 1:
            raise UserError(f"The eval_crop of the images is {self.eval_crop}: give 0 to 1.")
        if self.rand_augment is not None and (
            self.augment.place != "host" or self.channels not in (1, 3)
        ):
            raise UserError(
                "RandAugment distorts grey and colour images on the host: set augment.place=host "
                "and channels to 1 or 3, or rand_augment to None."
            )

    def shape(self, train: bool) -> tuple[int, ...]:
        """Returns (height, width, channels)."""
        larger = train and self.augment.place == "device" and self.decode_size
        return (*(self.decode_size if larger else self.size), self.channels)

    def read(self, value: np.ndarray, rng: np.random.Generator | None) -> np.ndarray:
        """uint8 [h, w, c] -> uint8 [*shape]: fitted, or augmented where the place is the host."""
        if rng is None:
            return self._centre(value)
        if self.augment.place == "device":
            return decode.fit(value, self.shape(True)[:2], self.channels)
        decode.check(value)
        value = decode.to_channels(value, self.channels)
        image = self.augment.on_host(rng, value, self.size)
        if self.rand_augment is None:
            return image
        return self.rand_augment(rng, image, tuple(round(255 * mean) for mean in self.mean))

    @property
    def fitted_size(self) -> tuple[int, ...]:
        """Height and width of an image in evaluation, before its centre of `size` is taken."""
        return tuple(round(n / self.eval_crop) for n in self.size)

    def _centre(self, value: np.ndarray) -> np.ndarray:
        """Returns what evaluation sees of an image."""
        whole = self.fitted_size
        image = decode.fit(value, whole, self.channels)
        top, left = ((n - m) // 2 for n, m in zip(whole, self.size, strict=True))
        return image[top : top + self.size[0], left : left + self.size[1]]

    def on_device(self, rng: jax.Array, values: jax.Array) -> jax.Array:
        """uint8 [B, h, w, C] -> float32 [B, *size, C] in [0, 255], augmented.

        Erased pixels may exceed the range, since their noise has the units of the model's view.
        """
        images = self.augment.on_device(rng, values, self.size)
        if self.erase is None:
            return images
        erased, noise = self.erase(jax.random.fold_in(rng, ERASING), images)
        return jnp.where(erased[..., None], 255.0 * self.denormalise(noise), images)

    def normalise(self, values: jax.Array) -> jax.Array:
        """Scales pixels to zero mean and unit variance.

        Args:
          values: uint8 or floating [..., C], in [0, 255].

        Returns:
          float32 of the same shape.
        """
        values = jnp.asarray(values, jnp.float32) / 255.0
        mean, std = self._statistics(values.ndim)
        return (values - mean) / std

    def denormalise(self, view: jax.Array) -> jax.Array:
        """Inverts `normalise`, up to the factor 255.

        Args:
          view: floating [..., C], normalised.

        Returns:
          float32 of the same shape. Pixels are in [0, 1]; predictions may exceed it, nothing is
          clipped.
        """
        view = jnp.asarray(view, jnp.float32)
        mean, std = self._statistics(view.ndim)
        return view * std + mean

    def raw(self, values: np.ndarray) -> np.ndarray:
        """uint8 [B, H, W, C] -> float32 [B, H * W * C] in [0, 1]."""
        return values.reshape(len(values), -1).astype(np.float32) / np.float32(255)

    def accept(self, values: Any) -> None:
        """Wants [B, H, W, C]; H and W may differ from `size`."""
        if values.ndim != 4 or values.shape[-1] != self.channels:
            raise UserError(
                f"Images have the shape [B, H, W, {self.channels}] here, not {tuple(values.shape)}."
            )

    def _statistics(self, ndim: int) -> tuple[jax.Array, jax.Array]:
        """Returns mean and std along the last of `ndim` axes."""
        shape = (1,) * (ndim - 1) + (self.channels,)
        mean, std = (jnp.asarray(v, jnp.float32).reshape(shape) for v in (self.mean, self.std))
        return mean, std

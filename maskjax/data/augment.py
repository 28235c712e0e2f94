"""Random crops and flips of training images, on the device or on the host."""

import dataclasses
import difflib
import math

import jax
import jax.numpy as jnp
import numpy as np

from maskjax.data import decode
from maskjax.data.resample import crop_resize
from maskjax.errors import UserError

_ATTEMPTS = 10  # boxes tried before the central one is taken
_PLACES = ("device", "host")
_CROPS = ("none", "resized", "clipped", "shift")
_BOXES = ("resized", "clipped")  # crops of a random box


@dataclasses.dataclass(frozen=True)
class Augment:
    """How training images are varied. Every image has its own draws.

    Crops:
      `none`: the image, scaled to cover the size and cut to its centre.
      `resized`: a random box, resized. Its area is `scale` times that of the image, uniform; its
        aspect ratio (width to height) is log-uniform in `ratio`; a box that does not fit is drawn
        again, up to ten times; then the largest central box with an allowed ratio is taken. This
        is the "inception crop" of Szegedy et al. (2015), with the details of torchvision.
      `clipped`: as `resized`, but drawn once: sides that do not fit are cut to those of the image
        (the crop of MAE's linear probe).
      `shift`: the image moved by whole pixels in each direction, uniform in [-shift, shift]; what
        comes in at the border is reflected.

    Attributes:
      place: `device` or `host`. On the host, `resized` and `clipped` crop the original image,
        whatever its size; on the device, they crop the image of `decode_size`.
      crop: `none`, `resized`, `clipped` or `shift`.
      scale: least and greatest share of the area, in (0, 1]. For `resized` and `clipped`.
      ratio: least and greatest aspect ratio. For `resized` and `clipped`.
      shift: greatest movement in pixels. For `shift`.
      flip: whether half of the images are mirrored left to right.

    Raises:
      UserError: a value that has no meaning.
    """

    place: str = "device"
    crop: str = "none"
    scale: tuple[float, float] = (0.2, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    shift: int = 1
    flip: bool = False

    def __post_init__(self) -> None:
        for name, known in (("place", _PLACES), ("crop", _CROPS)):
            value = getattr(self, name)
            if value not in known:
                close = difflib.get_close_matches(str(value), known, n=1, cutoff=0.4)
                hint = f"did you mean '{close[0]}'? " if close else ""
                raise UserError(
                    f"augment.{name} is '{value}'; {hint}It is one of {', '.join(known)}."
                )
        if len(self.scale) != 2 or not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise UserError(
                f"augment.scale is {self.scale}: give the least and the greatest share of "
                f"the area, both in (0, 1]."
            )
        if len(self.ratio) != 2 or not 0 < self.ratio[0] <= self.ratio[1]:
            raise UserError(
                f"augment.ratio is {self.ratio}: give the least and the greatest ratio of "
                f"width to height, both positive."
            )
        if not isinstance(self.shift, int) or self.shift < 0:
            raise UserError(f"augment.shift is {self.shift}: give pixels, 0 or more.")

    def check_size(self, size: tuple[int, int]) -> None:
        """Raises UserError if images of this size cannot be shifted so far."""
        if self.crop == "shift" and self.shift >= min(size):
            raise UserError(
                f"augment.shift is {self.shift}, but the images have {size[0]} x {size[1]} "
                f"pixels: give less than the shorter side."
            )

    def on_device(self, rng: jax.Array, images: jax.Array, size: tuple[int, int]) -> jax.Array:
        """Augments a batch. Pure; give `size` as a static argument to `jax.jit`.

        If the place is the host, the images have been augmented already: they are only converted.

        Args:
          rng: key. The draws of image i depend on the key, i and the size of the batch alone.
          images: uint8 [B, h, w, C].
          size: height and width of the result.

        Returns:
          float32 [B, *size, C] in [0, 255].
        """
        size = tuple(size)
        if self.place == "host":
            return _fit(images, size)
        keys = jax.random.split(rng, (images.shape[0], 2))
        if self.crop in _BOXES:
            boxes = jax.vmap(lambda key: self._box(key, images.shape[1:3]))(keys[:, 0])
            images = jax.vmap(lambda image, box: crop_resize(image, box, size))(images, boxes)
            images = jnp.clip(images, 0.0, 255.0)
        else:
            images = _fit(images, size)
            if self.crop == "shift":
                self.check_size(size)
                images = jax.vmap(self._shifted)(keys[:, 0], images)
        if self.flip:
            mirror = jax.vmap(jax.random.bernoulli)(keys[:, 1])
            images = jnp.where(mirror[:, None, None, None], images[:, :, ::-1], images)
        return images

    def _box(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """Draws top, left, height, width of one crop: int32 [4], within `shape`."""
        height, width = shape
        area_key, ratio_key, place_key = jax.random.split(key, 3)
        area = height * width * _uniform(area_key, (_ATTEMPTS,), *self.scale)
        ratio = jnp.exp(_uniform(ratio_key, (_ATTEMPTS,), *map(math.log, self.ratio)))
        widths = jnp.round(jnp.sqrt(area * ratio)).astype(jnp.int32)
        heights = jnp.round(jnp.sqrt(area / ratio)).astype(jnp.int32)
        if self.crop == "clipped":  # then the first fits
            widths, heights = jnp.minimum(widths, width), jnp.minimum(heights, height)
        fits = (widths > 0) & (widths <= width) & (heights > 0) & (heights <= height)
        first = jnp.argmax(fits)
        box = jnp.stack([heights[first], widths[first]])
        free = jnp.asarray(shape) - box
        corner = jnp.floor(jax.random.uniform(place_key, (2,)) * (free + 1)).astype(jnp.int32)
        # The product may round up to the (excluded) upper end.
        box = jnp.concatenate([jnp.minimum(corner, free), box])
        return jnp.where(fits.any(), box, jnp.asarray(_fallback_box(shape, self.ratio)))

    def _shifted(self, key: jax.Array, image: jax.Array) -> jax.Array:
        s = self.shift
        padded = jnp.pad(image, ((s, s), (s, s), (0, 0)), mode="reflect")
        top, left = jax.random.randint(key, (2,), 0, 2 * s + 1)
        return jax.lax.dynamic_slice(padded, (top, left, 0), image.shape)

    def on_host(
        self, rng: np.random.Generator, image: np.ndarray, size: tuple[int, int]
    ) -> np.ndarray:
        """Augments one image with NumPy and Pillow.

        Args:
          rng: source of the draws.
          image: uint8 [h, w, C] of any size.
          size: height and width of the result.

        Returns:
          uint8 [*size, C].
        """
        if self.crop in _BOXES:
            top, left, height, width = self._host_box(rng, image.shape[:2])
            image = decode.resize(image[top : top + height, left : left + width], size)
        else:
            image = decode.fit(image, size, image.shape[-1])
            if self.crop == "shift":
                self.check_size(size)
                s = self.shift
                padded = np.pad(image, ((s, s), (s, s), (0, 0)), mode="reflect")
                top, left = rng.integers(0, 2 * s + 1, 2)
                image = padded[top : top + size[0], left : left + size[1]]
        return image[:, ::-1] if self.flip and rng.random() < 0.5 else image

    def _host_box(self, rng: np.random.Generator, shape: tuple[int, int]) -> tuple[int, ...]:
        for _ in range(_ATTEMPTS):
            area = shape[0] * shape[1] * rng.uniform(*self.scale)
            narrowest, widest = map(math.log, self.ratio)
            ratio = math.exp(rng.uniform(narrowest, widest))
            width, height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if self.crop == "clipped":
                width, height = min(width, shape[1]), min(height, shape[0])
            if 0 < width <= shape[1] and 0 < height <= shape[0]:
                top = int(rng.integers(0, shape[0] - height + 1))
                left = int(rng.integers(0, shape[1] - width + 1))
                return top, left, height, width
        return _fallback_box(shape, self.ratio)


def _uniform(key: jax.Array, shape: tuple[int, ...], low: float, high: float) -> jax.Array:
    return jax.random.uniform(key, shape, minval=low, maxval=high)


def _fallback_box(shape: tuple[int, ...], ratio: tuple[float, float]) -> tuple[int, int, int, int]:
    """Returns the largest central box with an allowed ratio: top, left, height, width."""
    height, width = shape
    if width / height < ratio[0]:
        height = max(1, round(width / ratio[0]))
    elif width / height > ratio[1]:
        width = max(1, round(height * ratio[1]))
    return (shape[0] - height) // 2, (shape[1] - width) // 2, height, width


def _fit(images: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Scales images to cover `size` and takes their centre: float32 [B, *size, C]."""
    if images.shape[1:3] == size:
        return jnp.asarray(images, jnp.float32)
    box = jnp.asarray(decode.central_box(images.shape[1:3], size))
    fitted = jax.vmap(lambda image: crop_resize(image, box, size, cut=False))(images)
    return jnp.clip(fitted, 0.0, 255.0)

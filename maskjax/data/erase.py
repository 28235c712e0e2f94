"""Random erasing: a rectangle of noise in some of the images."""

import dataclasses
import math

import jax
import jax.numpy as jnp

from maskjax.errors import UserError

_ATTEMPTS = 10  # rectangles tried before the image stays as it is


@dataclasses.dataclass(frozen=True)
class Erase:
    """Puts a rectangle of noise into images (Zhong et al., 2020, arXiv 1708.04896).

    The rules are those of timm's "pixel" mode: the area is a uniform share of the image's, the
    ratio of height to width is log-uniform, and a rectangle that is as high or as wide as the image
    is drawn again, up to ten times; then the image stays whole. Every value is drawn from N(0, 1),
    in units of the normalised image.

    Attributes:
      probability: of erasing something in an image.
      area: least and greatest share of the image.
      ratio: least ratio of height to width; the greatest is its inverse.

    Raises:
      UserError: a value that has no meaning.
    """

    probability: float = 0.25
    area: tuple[float, float] = (0.02, 1 / 3)
    ratio: float = 0.3

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1:
            raise UserError(f"The probability of erase is {self.probability}: give 0 to 1.")
        if len(self.area) != 2 or not 0 < self.area[0] <= self.area[1] <= 1:
            raise UserError(
                f"The area of erase is {self.area}: give the least and the greatest share of the "
                "image, both in (0, 1]."
            )
        if not 0 < self.ratio <= 1:
            raise UserError(f"The ratio of erase is {self.ratio}: give a number in (0, 1].")

    def __call__(self, rng: jax.Array, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Draws for every image of a batch.

        Args:
          rng: key. The draws of image i depend on the key, i and the size of the batch alone.
          images: [B, H, W, C].

        Returns:
          Where something is erased, bool [B, H, W], and the noise, float32 [B, H, W, C].
        """
        keys = jax.random.split(rng, (len(images), 2))
        erased = jax.vmap(lambda key: self._rectangle(key, images.shape[1:3]))(keys[:, 0])
        noise = jax.vmap(lambda key: jax.random.normal(key, images.shape[1:]))(keys[:, 1])
        return erased, noise

    def _rectangle(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        height, width = shape
        use_key, area_key, ratio_key, place_key = jax.random.split(key, 4)
        used = jax.random.bernoulli(use_key, self.probability)
        share = jax.random.uniform(area_key, (_ATTEMPTS,), minval=self.area[0], maxval=self.area[1])
        bound = math.log(1 / self.ratio)
        ratio = jnp.exp(jax.random.uniform(ratio_key, (_ATTEMPTS,), minval=-bound, maxval=bound))
        heights = jnp.round(jnp.sqrt(height * width * share * ratio)).astype(jnp.int32)
        widths = jnp.round(jnp.sqrt(height * width * share / ratio)).astype(jnp.int32)
        fits = (heights < height) & (widths < width)
        first = jnp.argmax(fits)
        extent = jnp.stack([heights[first], widths[first]])
        free = jnp.asarray(shape) - extent
        # The product may round up to the (excluded) upper end.
        corner = jnp.floor(jax.random.uniform(place_key, (2,)) * (free + 1)).astype(jnp.int32)
        corner = jnp.minimum(corner, free)
        rows, columns = (
            (jnp.arange(size) >= start) & (jnp.arange(size) < start + length)
            for size, start, length in zip(shape, corner, extent, strict=True)
        )
        return used & fits.any() & rows[:, None] & columns[None, :]

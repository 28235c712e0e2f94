"""Dense maps as inputs, aligned with images: depth, and classes of pixels."""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image

from maskjax.data import decode
from maskjax.data.augment import Augment
from maskjax.data.resample import crop_resize
from maskjax.errors import UserError


def standardise_depth(depth: jax.Array, cut: float = 0.1, epsilon: float = 1e-6) -> jax.Array:
    """Standardises every map by the values between its extremes (MultiMAE, Bachmann et al., 2022).

    Mean and (unbiased) variance are those of the sorted values from int(cut n) up to, excluding,
    int((1 - cut) n), so that a few far or wrong pixels do not set the scale.

    Args:
      depth: float [B, H, W, C].
      cut: share of the values left out at each end.
      epsilon: added to the variance.

    Returns:
      float32 of the same shape.
    """
    depth = jnp.asarray(depth, jnp.float32)
    values = jnp.sort(depth.reshape(depth.shape[0], -1), axis=1)
    n = values.shape[1]
    middle = values[:, int(cut * n) : int((1.0 - cut) * n)]
    mean, variance = middle.mean(axis=1), middle.var(axis=1, ddof=1)
    mean, std = (x[:, None, None, None] for x in (mean, jnp.sqrt(variance + epsilon)))
    return (depth - mean) / std


@dataclasses.dataclass(frozen=True)
class _Map:
    """What depth and class maps have in common: size, cropping, alignment with an image.

    To stay aligned with an image, a map needs its `augment`, and the same `decode_size` where the
    device crops.
    """

    size: tuple[int, int] = (224, 224)
    decode_size: tuple[int, ...] | None = None
    augment: Augment = dataclasses.field(default_factory=Augment)
    optional: bool = False

    channels = 1
    view = "image"
    dtype: ClassVar[np.dtype]

    def __post_init__(self) -> None:
        for name, size in (("size", self.size), ("decode_size", self.decode_size or self.size)):
            if len(size) != 2 or not all(isinstance(n, int) and n > 0 for n in size):
                raise UserError(
                    f"The {name} of the maps is {size}: give height and width as two positive "
                    "integers."
                )
        if self.augment.place == "host" and (self.augment.crop != "none" or self.augment.flip):
            raise UserError("Maps are augmented on the device: set augment.place to 'device'.")

    def shape(self, train: bool) -> tuple[int, ...]:
        """Returns (height, width, 1)."""
        return (*((train and self.decode_size) or self.size), 1)

    def on_device(self, rng: jax.Array, values: jax.Array) -> jax.Array:
        """[B, h, w, 1] -> [B, *size, 1], cropped and flipped as `data.Image` is."""
        augment, size = self.augment, tuple(self.size)
        keys = jax.random.split(rng, (values.shape[0], 2))
        if augment.crop == "resized":
            boxes = jax.vmap(lambda key: augment._box(key, values.shape[1:3]))(keys[:, 0])
            values = self._cropped(values, boxes, size)
        else:
            if values.shape[1:3] != size:
                box = jnp.asarray(decode.central_box(values.shape[1:3], size))
                values = self._cropped(values, jnp.tile(box[None, :], (len(values), 1)), size)
            if augment.crop == "shift":
                values = jax.vmap(augment._shifted)(keys[:, 0], values)
        if augment.flip:
            mirror = jax.vmap(jax.random.bernoulli)(keys[:, 1])
            values = jnp.where(mirror[:, None, None, None], values[:, :, ::-1], values)
        return values

    def raw(self, values: np.ndarray) -> np.ndarray:
        """[B, H, W, 1] -> float32 [B, H * W]."""
        return values.reshape(len(values), -1).astype(np.float32)

    def accept(self, values: Any) -> None:
        """Wants [B, H, W, 1]."""
        if values.ndim != 4 or values.shape[-1] != 1:
            raise UserError(f"Maps have the shape [B, H, W, 1] here, not {tuple(values.shape)}.")

    def _cropped(self, values: jax.Array, boxes: jax.Array, size: tuple[int, int]) -> jax.Array:
        raise NotImplementedError

    def _fitted(self, value: np.ndarray, train: bool, resampling: Any) -> np.ndarray:
        """[h, w] or [h, w, 1] -> [*shape, 1]: scaled to cover it, and cut to the centre."""
        value = np.asarray(value)
        value = value[..., 0] if value.ndim == 3 and value.shape[-1] == 1 else value
        if value.ndim != 2 or not value.size:
            raise ValueError(f"a map has to be [h, w] or [h, w, 1], not {value.shape}")
        rows, columns, *_ = self.shape(train)
        if value.shape != (rows, columns):
            top, left, height, width = decode.central_box(value.shape, (rows, columns))
            corners = (left, top, left + width, top + height)
            picture = PIL.Image.fromarray(value.astype(np.float32))
            value = np.asarray(picture.resize((columns, rows), resampling, corners))
        return value.astype(self.dtype)[..., None]


@dataclasses.dataclass(frozen=True)
class Depth(_Map):
    """A depth map; the model sees it standardised, see `standardise_depth`.

    Records give numbers [h, w] or [h, w, 1] of any type, in any unit.

    Attributes:
      size: height and width that the model sees.
      decode_size: height and width that the device augments; None: `size`.
      augment: the image's.
      optional: whether records may lack it.
    """

    dtype = np.dtype(np.float32)

    def read(self, value: np.ndarray, rng: np.random.Generator | None) -> np.ndarray:
        """Numbers [h, w] -> float32 [*shape], resized bicubically."""
        return self._fitted(value, rng is not None, PIL.Image.Resampling.BICUBIC)

    def _cropped(self, values: jax.Array, boxes: jax.Array, size: tuple[int, int]) -> jax.Array:
        return jax.vmap(lambda value, box: crop_resize(value, box, size))(values, boxes)

    def normalise(self, values: jax.Array) -> jax.Array:
        """float [B, H, W, 1] -> float32 of the same shape."""
        return standardise_depth(values)

    def denormalise(self, view: jax.Array) -> jax.Array:
        """Returns grey values: 2.5 standard deviations on both sides of the mean are in [0, 1]."""
        return 0.5 + jnp.asarray(view, jnp.float32) / 5.0


@dataclasses.dataclass(frozen=True)
class ClassMap(_Map):
    """A class for every pixel, at the image's size or a smaller one (MultiMAE: a quarter).

    Records give integers [h, w] or [h, w, 1] in [0, classes).

    Attributes:
      classes: how many there are.
      size: height and width that the model sees.
      decode_size: height and width that the device augments; None: `size`.
      augment: the image's.
      optional: whether records may lack it.
    """

    classes: int = 133

    dtype = np.dtype(np.int32)

    def read(self, value: np.ndarray, rng: np.random.Generator | None) -> np.ndarray:
        """Integers [h, w] -> int32 [*shape]; every place gets the class of the nearest pixel."""
        value = self._fitted(value, rng is not None, PIL.Image.Resampling.NEAREST)
        if not 0 <= value.min() <= value.max() < self.classes:
            raise UserError(
                f"A map has classes from {value.min()} to {value.max()}, but the input has "
                f"{self.classes}, counted from 0: set its `classes`, or merge the others into one."
            )
        return value

    def _cropped(self, values: jax.Array, boxes: jax.Array, size: tuple[int, int]) -> jax.Array:
        def nearest(value: jax.Array, box: jax.Array) -> jax.Array:
            places = [
                jnp.clip(jnp.floor(box[i] + (jnp.arange(n) + 0.5) * box[2 + i] / n), 0, limit - 1)
                for i, (n, limit) in enumerate(zip(size, value.shape[:2], strict=True))
            ]
            rows, columns = (place.astype(jnp.int32) for place in places)
            return value[rows][:, columns]

        return jax.vmap(nearest)(values, boxes)

    def normalise(self, values: jax.Array) -> jax.Array:
        """Integers [B, H, W, 1] -> float32 of the same shape: the numbers themselves."""
        return jnp.asarray(values, jnp.float32)

    def denormalise(self, view: jax.Array) -> jax.Array:
        """[B, H, W, 1] -> [B, H, W, 3], a colour for each class."""
        # Multiples of the golden ratio spread the hues of few and many classes alike.
        hues = (jnp.arange(self.classes) * 0.6180339887) % 1.0
        phases = jnp.asarray([0.0, 1 / 3, 2 / 3])
        colours = 0.5 + 0.5 * jnp.cos(2 * jnp.pi * (hues[:, None] - phases[None, :]))
        return colours[jnp.clip(view[..., 0], 0, self.classes - 1).astype(jnp.int32)]

"""The crop of video pretraining: a few sizes at a few places (TSN: Wang et al., 2016)."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from maskjax.data import decode
from maskjax.data.resample import crop_resize
from maskjax.errors import UserError

# Places of the box, (column, row) in quarters of what is left free: corners and centre, middles of
# the sides, middles of the quadrants.
_PLACES = np.array(
    [
        *[(0, 0), (4, 0), (0, 4), (4, 4), (2, 2)],
        *[(0, 2), (4, 2), (2, 4), (2, 0)],
        *[(1, 1), (3, 1), (1, 3), (3, 3)],
    ]
)


@dataclasses.dataclass(frozen=True)
class MultiScaleCrop:
    """A random box out of a few, resized: the only augmentation of VideoMAE's pretraining.

    Height and width of the box are each one of `scales` times the shorter side, neighbours in the
    list at most; it lies at one of 13 places. All choices are uniform.

    Attributes:
      scales: shares of the shorter side, in (0, 1], falling.
      flip: whether half of the images are mirrored left to right.
      place: `device` or `host`, where it crops the original frames, whatever their size.

    Raises:
      UserError: scales that are none.
    """

    scales: tuple[float, ...] = (1.0, 0.875, 0.75, 0.66)
    flip: bool = False
    place: str = "device"

    def __post_init__(self) -> None:
        if self.place not in ("device", "host"):
            raise UserError(f"augment.place is '{self.place}'; it is one of device, host.")
        falling = all(a > b for a, b in zip(self.scales, self.scales[1:], strict=False))
        if not self.scales or not falling or not 0 < min(self.scales) <= max(self.scales) <= 1:
            raise UserError(
                f"augment.scales is {self.scales}: give shares of the shorter side in (0, 1], "
                "the largest first."
            )

    def check_size(self, size: tuple[int, int]) -> None:
        """Any size will do."""

    def boxes(self, shape: tuple[int, ...], size: tuple[int, int]) -> np.ndarray:
        """Returns every box: int [pairs of scales, places, 4]: top, left, height, width.

        Args:
          shape: height and width of the images.
          size: of the result; an extent within three pixels of it becomes equal to it, as in the
            original.
        """
        short = min(shape)
        extents = [int(short * scale) for scale in self.scales]

        def near(extent: int, wanted: int) -> int:
            return wanted if abs(extent - wanted) < 3 and wanted <= short else extent

        pairs = [
            (near(h, size[0]), near(w, size[1]))
            for i, h in enumerate(extents)
            for j, w in enumerate(extents)
            if abs(i - j) <= 1
        ]
        boxes = [
            [
                ((shape[0] - h) // 4 * row, (shape[1] - w) // 4 * column, h, w)
                for column, row in _PLACES
            ]
            for h, w in pairs
        ]
        return np.array(boxes)

    def on_device(self, rng: jax.Array, images: jax.Array, size: tuple[int, int]) -> jax.Array:
        """uint8 [B, h, w, C] -> float32 [B, *size, C] in [0, 255], augmented unless on the host."""
        size, b = tuple(size), images.shape[0]
        if self.place == "host":
            return jnp.asarray(images, jnp.float32)
        boxes = jnp.asarray(self.boxes(images.shape[1:3], size))
        keys = jax.random.split(rng, 3)
        pair = jax.random.randint(keys[0], (b,), 0, boxes.shape[0])
        place = jax.random.randint(keys[1], (b,), 0, boxes.shape[1])
        images = jax.vmap(lambda image, box: crop_resize(image, box, size))(
            images, boxes[pair, place]
        )
        images = jnp.clip(images, 0.0, 255.0)
        if self.flip:
            mirror = jax.random.bernoulli(keys[2], shape=(b,))
            images = jnp.where(mirror[:, None, None, None], images[:, :, ::-1], images)
        return images

    def on_host(
        self, rng: np.random.Generator, image: np.ndarray, size: tuple[int, int]
    ) -> np.ndarray:
        """uint8 [h, w, C] -> uint8 [*size, C], with draws of its own."""
        boxes = self.boxes(image.shape[:2], size)
        top, left, height, width = boxes[tuple(rng.integers(0, boxes.shape[:2]))]
        image = decode.resize(image[top : top + height, left : left + width], size)
        return image[:, ::-1] if self.flip and rng.random() < 0.5 else image

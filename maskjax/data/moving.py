"""Clips made of real images that move: video data without video files."""

import dataclasses
from typing import Any

import numpy as np

from maskjax.data import decode
from maskjax.data.records import Records
from maskjax.errors import UserError

# (rows, columns) per frame at unit speed, clockwise from the right; the label is the place here.
DIRECTIONS = ((0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1))
NAMES = (
    "right",
    "down-right",
    "down",
    "down-left",
    "left",
    "up-left",
    "up",
    "up-right",
)
CANVASES = ("black", "mirror")


@dataclasses.dataclass(frozen=True)
class MovingImages:
    """Clips of the images of another source, each moving straight on in one of 8 directions.

    The label is the direction: no single frame tells it. Record i is always the same clip, a
    function of the seed and i; a random direction, speed and start.

    Canvases:
      `black`: the image is an object of `object_size` that moves over black, and stays in sight.
      `mirror`: the image fills the frame; what comes in at the border is its mirror image.

    Attributes:
      source: a source of images (`data.TFDS`, `data.Digits`, `data.ImageFolder`, ...); its splits
        are the splits here.
      size: frames, height and width of the clips.
      canvas: see above.
      object_size: height and width of the object, for `black`; None: half of the frame's.
      speed: least and greatest movement in pixels per frame, along each axis that it moves along.
      label: what the label is: "direction", or "image", that of the image in the source.
      seed: of directions, speeds and starts.

    Raises:
      UserError: values that do not fit together.
    """

    source: Any
    size: tuple[int, int, int] = (8, 32, 32)
    canvas: str = "black"
    object_size: tuple[int, ...] | None = None
    speed: tuple[int, int] = (1, 2)
    label: str = "direction"
    seed: int = 0

    def __post_init__(self) -> None:
        if len(self.size) != 3 or not all(isinstance(n, int) and n > 0 for n in self.size):
            raise UserError(
                f"The size of the moving images is {self.size}: give frames, height and width as "
                "three positive integers."
            )
        for name, known in (("canvas", CANVASES), ("label", ("direction", "image"))):
            if getattr(self, name) not in known:
                raise UserError(
                    f"{name} of data.MovingImages must be one of {', '.join(known)}, not "
                    f"'{getattr(self, name)}'."
                )
        if len(self.speed) != 2 or not 0 < self.speed[0] <= self.speed[1]:
            raise UserError(
                f"speed of data.MovingImages is {self.speed}: give the least and the greatest "
                "number of pixels per frame, both positive."
            )
        path = self.speed[1] * (self.size[0] - 1)
        room = min(n - o for n, o in zip(self.size[1:], self.extent, strict=True))
        if self.canvas == "black" and path > room:
            raise UserError(
                f"At {self.speed[1]} pixels per frame an object moves {path} pixels in "
                f"{self.size[0]} frames, but has room for {room}: reduce speed, object_size or the "
                "number of frames of data.MovingImages."
            )

    @property
    def extent(self) -> tuple[int, int]:
        """Height and width of what moves, before it is mirrored."""
        height, width = self.size[1:]
        if self.canvas != "mirror":
            height, width = self.object_size or (height // 2, width // 2)
        return height, width

    def open(self, split: str) -> "MovingRecords":
        """Opens a split of the source.

        Raises:
          UserError: as the source does.
        """
        records = self.source.open(split)
        if self.label == "image":
            return MovingRecords(self, records, records.num_classes, records.label_names)
        return MovingRecords(self, records, len(NAMES), NAMES)


@dataclasses.dataclass(frozen=True)
class MovingRecords:
    """Records of `MovingImages`: `video` uint8 [T, H, W, c], and the label."""

    source: MovingImages
    images: Records
    num_classes: int | None
    label_names: tuple[str, ...] | None

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> dict[str, Any]:
        record = self.images[i]
        rng = np.random.default_rng([self.source.seed, i])
        direction = int(rng.integers(len(DIRECTIONS)))
        video = moving_clip(
            record["image"],
            self.source.size,
            self.source.extent,
            direction,
            int(rng.integers(self.source.speed[0], self.source.speed[1] + 1)),
            rng,
            self.source.canvas,
        )
        if self.source.label == "direction":
            return {"video": video, "label": direction}
        return {"video": video} | {k: v for k, v in record.items() if k == "label"}

    def describe(self, i: int) -> str:
        """Returns the image that moves."""
        return f"{self.images.describe(i)}, moving"


def moving_clip(
    image: np.ndarray,
    size: tuple[int, int, int],
    extent: tuple[int, int],
    direction: int,
    speed: int,
    rng: np.random.Generator,
    canvas: str,
) -> np.ndarray:
    """Moves one image.

    Args:
      image: uint8 [h, w, c] of any size.
      size: frames, height and width of the clip.
      extent: height and width to which the image is brought first.
      direction: place in `DIRECTIONS`: where the content moves to.
      speed: pixels per frame.
      rng: decides the start, for a black canvas.
      canvas: "black" or "mirror".

    Returns:
      uint8 [T, H, W, c].
    """
    t, *frame = size
    image = decode.fit(image, extent, image.shape[-1])
    step = speed * np.array(DIRECTIONS[direction])
    path = step * (t - 1)
    if canvas == "mirror":
        # A window slides over the mirrored image, against the direction of the content.
        reach = [(abs(int(p)),) * 2 for p in path]
        ground = np.pad(image, (*reach, (0, 0)), mode="symmetric")
        starts = np.array([r for r, _ in reach])[None, :] - step[None, :] * np.arange(t)[:, None]
        return np.stack([_cut(ground, start, frame) for start in starts])
    room = np.array(frame) - extent - abs(path)
    start = rng.integers(0, room + 1) + np.maximum(-path, 0)
    clip = np.zeros((t, *frame, image.shape[-1]), np.uint8)
    for i in range(t):
        _cut(clip[i], start + i * step, extent)[...] = image
    return clip


def _cut(image: np.ndarray, start: np.ndarray, size: Any) -> np.ndarray:
    """Returns a view of a box of an image."""
    (top, left), (height, width) = map(int, start), size
    return image[top : top + height, left : left + width]

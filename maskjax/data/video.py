"""Clips as an input: which frames of a video are seen, their size, and augmentation."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from maskjax.data import decode
from maskjax.data.augment import Augment
from maskjax.data.image import Image
from maskjax.data.multi_scale import MultiScaleCrop
from maskjax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Video:
    """Clips of one size. Records give uint8 [t, h, w, c] of any length and size.

    A clip has every `stride`-th frame, from a random start in training and from the middle of the
    video in evaluation. All frames of a clip are cropped, moved and mirrored alike.

    Attributes:
      size: frames, height and width that the model sees.
      channels: number of channels.
      mean: per channel, of pixels scaled to [0, 1].
      std: per channel.
      stride: frames of the video from one frame of the clip to the next.
      short: what becomes of a video that is shorter than a clip: "refuse" it, or "repeat" its last
        frame.
      decode_size: height and width of the frames that the device augments; None: as in `size`.
      augment: `data.Augment` or `data.MultiScaleCrop`, of training clips.
      optional: whether records may lack it.

    Raises:
      UserError: values that do not fit together.
    """

    size: tuple[int, int, int] = (16, 224, 224)
    channels: int = 3
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    stride: int = 4
    short: str = "refuse"
    decode_size: tuple[int, ...] | None = None
    augment: Augment | MultiScaleCrop = dataclasses.field(default_factory=Augment)
    optional: bool = False

    view = "video"
    dtype = np.dtype(np.uint8)

    def __post_init__(self) -> None:
        if len(self.size) != 3 or not all(isinstance(n, int) and n > 0 for n in self.size):
            raise UserError(
                f"The size of the video is {self.size}: give frames, height and width as three "
                "positive integers."
            )
        if not isinstance(self.stride, int) or self.stride < 1:
            raise UserError(f"The stride of the video is {self.stride}: give frames, 1 or more.")
        if self.short not in ("refuse", "repeat"):
            raise UserError(f"short must be 'refuse' or 'repeat', not '{self.short}'.")
        _ = self._frame  # checks the rest

    @functools.cached_property
    def _frame(self) -> Image:
        """What each frame is."""
        return Image(
            size=tuple(self.size[1:]),
            channels=self.channels,
            mean=self.mean,
            std=self.std,
            decode_size=self.decode_size,
            augment=self.augment,
        )

    def shape(self, train: bool) -> tuple[int, ...]:
        """Returns (frames, height, width, channels)."""
        return (self.size[0], *self._frame.shape(train))

    def read(self, value: np.ndarray, rng: np.random.Generator | None) -> np.ndarray:
        """uint8 [t, h, w, c] -> uint8 [*shape].

        Raises:
          UserError: the video is shorter than a clip.
        """
        if value.ndim != 4 or value.dtype != np.uint8 or not value.size:
            raise ValueError(
                f"a video has to be uint8 [t, h, w, c], not {value.dtype} {value.shape}"
            )
        frames = value[self._chosen(len(value), rng)]
        if rng is None or self.augment.place == "device":
            size = self.shape(rng is not None)[1:3]
            return np.stack([decode.fit(frame, size, self.channels) for frame in frames])
        frames = np.stack([decode.to_channels(frame, self.channels) for frame in frames])
        folded = self.augment.on_host(rng, _fold(frames[None])[0], self._frame.size)
        return _unfold(folded[None], self.channels)[0]

    def _chosen(self, length: int, rng: np.random.Generator | None) -> np.ndarray:
        """Returns the numbers of the frames of a clip, int [T]."""
        offsets = self.stride * np.arange(self.size[0])
        free = length - int(offsets[-1]) - 1
        if free < 0 and self.short == "refuse":
            raise UserError(
                f"A video has {length} frames, but {self.size[0]} frames at a stride of "
                f"{self.stride} need {offsets[-1] + 1}: reduce size or stride of the video in "
                "data.inputs, or set short=repeat."
            )
        start = max(free, 0) // 2 if rng is None else int(rng.integers(0, max(free, 0) + 1))
        return np.minimum(start + offsets, length - 1)

    def on_device(self, rng: jax.Array, values: jax.Array) -> jax.Array:
        """uint8 [B, T, h, w, C] -> float32 [B, *size, C] in [0, 255], augmented."""
        return _unfold(self._frame.on_device(rng, _fold(values)), self.channels)

    def normalise(self, values: jax.Array) -> jax.Array:
        """uint8 or floating [..., C] in [0, 255] -> float32, of zero mean and unit variance."""
        return self._frame.normalise(values)

    def denormalise(self, view: jax.Array) -> jax.Array:
        """Inverts `normalise`, up to the factor 255; nothing is clipped."""
        return self._frame.denormalise(view)

    def raw(self, values: np.ndarray) -> np.ndarray:
        """uint8 [B, T, H, W, C] -> float32 [B, T * H * W * C] in [0, 1]."""
        return self._frame.raw(values)

    def accept(self, values: Any) -> None:
        """Wants [B, T, H, W, C]; T, H and W may differ from `size`."""
        if values.ndim != 5 or values.shape[-1] != self.channels:
            raise UserError(
                f"Videos have the shape [B, T, H, W, {self.channels}] here, not "
                f"{tuple(values.shape)}."
            )


def _fold(clips: Any) -> Any:
    """[B, T, h, w, C] -> [B, h, w, T * C]: as one image, so that all frames are treated alike."""
    xp = jnp if isinstance(clips, jax.Array) else np
    b, t, h, w, c = clips.shape
    return xp.moveaxis(clips, 1, 3).reshape(b, h, w, t * c)


def _unfold(images: Any, channels: int) -> Any:
    """Inverts `_fold`."""
    xp = jnp if isinstance(images, jax.Array) else np
    return xp.moveaxis(images.reshape(*images.shape[:3], -1, channels), 3, 1)

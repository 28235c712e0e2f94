"""Clips as an input: which frames of a video are seen, their size, and augmentation."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from maskjax.data import decode
from maskjax.data.augment import Augment
from maskjax.data.erase import Erase
from maskjax.data.image import ERASING, Image
from maskjax.data.multi_scale import MultiScaleCrop
from maskjax.data.rand_augment import RandAugment
from maskjax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Video:
    """Clips of one size. Records give uint8 [t, h, w, c] of any length and size.

    A clip has every `stride`-th frame, from a random start in training and from the middle of the
    video in evaluation; or a frame of each of equal segments of the whole video, a random one in
    training (TSN: Wang et al., 2016), the middle one in evaluation. All frames of a clip are
    cropped, moved, mirrored and distorted alike.

    Evaluation may see several views of a video, as is usual for classification: clips from its
    start to its end at equal distances (or other frames of the segments), and of each of them
    squares (or whatever the shape of `size`) along the longer side of the frames, from one end to
    the other.

    Attributes:
      size: frames, height and width that the model sees.
      channels: number of channels.
      mean: per channel, of pixels scaled to [0, 1].
      std: per channel.
      sampling: "stride" or "segments".
      stride: frames of the video from one frame of the clip to the next; not for segments.
      short: what becomes of a video that is shorter than a clip: "refuse" it, or "repeat" its last
        frame (of segments: some frames).
      decode_size: height and width of the frames that the device augments; None: as in `size`.
      augment: `data.Augment` or `data.MultiScaleCrop`, of training clips.
      optional: whether records may lack it.
      rand_augment: distortions of training clips after `augment`; None: none. Only where
        `augment.place` is the host.
      erase: a rectangle of noise in training clips, at the same place in all frames, drawn on the
        device at last; None: none.
      eval_clips: clips that evaluation sees of a video.
      eval_crops: crops that it sees of each clip.

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
    rand_augment: RandAugment | None = None
    erase: Erase | None = None
    eval_clips: int = 1
    eval_crops: int = 1
    sampling: str = "stride"

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
        for name, known in (("short", ("refuse", "repeat")), ("sampling", ("stride", "segments"))):
            if getattr(self, name) not in known:
                words = f"'{known[0]}' or '{known[1]}', not '{getattr(self, name)}'"
                raise UserError(f"{name} must be {words}.")
        if min(self.eval_clips, self.eval_crops) < 1:
            raise UserError(
                f"The video has {self.eval_clips} eval_clips and {self.eval_crops} eval_crops: "
                "give 1 or more."
            )
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
            rand_augment=self.rand_augment,
        )

    @property
    def views(self) -> int:
        """How many evaluation sees of a video."""
        return self.eval_clips * self.eval_crops

    def shape(self, train: bool) -> tuple[int, ...]:
        """Returns (frames, height, width, channels)."""
        return (self.size[0], *self._frame.shape(train))

    def read(self, value: np.ndarray, rng: np.random.Generator | None) -> np.ndarray:
        """uint8 [t, h, w, c] -> uint8 [*shape].

        Raises:
          UserError: the video is shorter than a clip.
        """
        if rng is None:
            return self._cut(value, 1, 0, 1, 0)
        frames = value[self._drawn(value, rng)]
        if self.augment.place == "device":
            return np.stack(
                [decode.fit(frame, self.shape(True)[1:3], self.channels) for frame in frames]
            )
        frames = np.stack([decode.to_channels(frame, self.channels) for frame in frames])
        folded = self.augment.on_host(rng, _fold(frames[None])[0], self._frame.size)
        clip = _unfold(folded[None], self.channels)[0]
        if self.rand_augment is None:
            return clip
        fill, seed = tuple(round(255 * mean) for mean in self.mean), rng.integers(2**63)
        return np.stack(
            [self.rand_augment(np.random.default_rng(seed), frame, fill) for frame in clip]
        )

    def read_view(self, value: np.ndarray, view: int) -> np.ndarray:
        """uint8 [t, h, w, c] -> uint8 [*shape(False)], crop by crop and clip after clip.

        Raises:
          UserError: the video is shorter than a clip.
        """
        clip, crop = divmod(view, self.eval_crops)
        return self._cut(value, self.eval_clips, clip, self.eval_crops, crop)

    def _cut(self, value: np.ndarray, clips: int, clip: int, crops: int, crop: int) -> np.ndarray:
        """Returns one of several clips and of several crops of it; a single one is the middle."""
        size, frames = self.size[1:], value[self._placed(value, clips, clip)]
        top, left, height, width = decode.central_box(frames.shape[1:3], size)
        share = 2 * crop / (crops - 1) if crops > 1 else 1.0  # of what is free on each side
        box = (top * share, left * share, height, width)
        frames = [decode.to_channels(frame, self.channels) for frame in frames]
        if frames[0].shape[:2] == tuple(size):
            return np.stack(frames)
        return np.stack([decode.resize(frame, size, box) for frame in frames])

    def _drawn(self, value: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Returns the numbers of the frames of a clip of training, int [T]."""
        free = self._free(value)
        if self.sampling == "segments":
            return self._of_segments(value, rng.random(self.size[0]))
        return self._from(value, int(rng.integers(0, free + 1)))

    def _placed(self, value: np.ndarray, clips: int, clip: int) -> np.ndarray:
        """Returns the numbers of the frames of one of several clips of evaluation, int [T]."""
        free = self._free(value)
        if self.sampling == "segments":
            return self._of_segments(value, np.asarray(clip / clips if clips > 1 else 0.5))
        if clips == 1:
            return self._from(value, free // 2)
        # In whole strides, as VideoMAE counts them.
        return self._from(value, clip * (free // self.stride) // (clips - 1) * self.stride)

    def _free(self, value: np.ndarray) -> int:
        """Returns how many frames a video has more than a clip reaches over."""
        segments = self.sampling == "segments"
        needed = self.size[0] if segments else self.stride * (self.size[0] - 1) + 1
        if len(_checked(value)) < needed and self.short == "refuse":
            how = "in segments" if segments else f"at a stride of {self.stride}"
            raise UserError(
                f"A video has {len(value)} frames, but {self.size[0]} frames {how} need {needed}: "
                "reduce size or stride of the video in data.inputs, or set short=repeat."
            )
        return max(len(value) - needed, 0)

    def _from(self, value: np.ndarray, start: int) -> np.ndarray:
        return np.minimum(start + self.stride * np.arange(self.size[0]), len(value) - 1)

    def _of_segments(self, value: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Returns the frames at places in [0, 1) of each segment."""
        frames = (np.arange(self.size[0]) + places) * (len(value) / self.size[0])
        return np.minimum(frames.astype(np.int64), len(value) - 1)

    def on_device(self, rng: jax.Array, values: jax.Array) -> jax.Array:
        """uint8 [B, T, h, w, C] -> float32 [B, *size, C] in [0, 255], augmented.

        Erased pixels may exceed the range, since their noise has the units of the model's view.
        """
        folded = self._frame.on_device(rng, _fold(values))
        clips = _unfold(folded, self.channels)
        if self.erase is None:
            return clips
        erased, noise = self.erase(jax.random.fold_in(rng, ERASING), folded)
        noise = 255.0 * self.denormalise(_unfold(noise, self.channels))
        return jnp.where(erased[:, None, :, :, None], noise, clips)

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


def _checked(value: np.ndarray) -> np.ndarray:
    """Returns a video as it is.

    Raises:
      ValueError: it is none.
    """
    if value.ndim != 4 or value.dtype != np.uint8 or not value.size:
        raise ValueError(f"a video has to be uint8 [t, h, w, c], not {value.dtype} {value.shape}")
    return value


def _fold(clips: Any) -> Any:
    """[B, T, h, w, C] -> [B, h, w, T * C]: as one image, so that all frames are treated alike."""
    xp = jnp if isinstance(clips, jax.Array) else np
    b, t, h, w, c = clips.shape
    return xp.moveaxis(clips, 1, 3).reshape(b, h, w, t * c)


def _unfold(images: Any, channels: int) -> Any:
    """Inverts `_fold`."""
    xp = jnp if isinstance(images, jax.Array) else np
    return xp.moveaxis(images.reshape(*images.shape[:3], -1, channels), 3, 1)

"""The static geometry of a sequence of tokens."""

import dataclasses
import math

from maskjax.errors import UserError


@dataclasses.dataclass(frozen=True)
class TokenGrid:
    """How one modality is cut into tokens.

    Attributes:
      shape: number of tokens along each axis, e.g. (14, 14) for an image.
      patch: extent of a token along each axis, in pixels (frames, samples, ...), e.g. (16, 16).
      channels: values per pixel.
    """

    shape: tuple[int, ...]
    patch: tuple[int, ...]
    channels: int

    @property
    def num_tokens(self) -> int:
        """N, the length of the unmasked sequence."""
        return math.prod(self.shape)

    @property
    def values_per_token(self) -> int:
        """P, the number of values (pixels x channels) that one token covers."""
        return math.prod(self.patch) * self.channels

    @property
    def size(self) -> tuple[int, ...]:
        """Extent of the whole modality, e.g. the height and width of the image."""
        return tuple(n * p for n, p in zip(self.shape, self.patch, strict=True))

    @classmethod
    def of(cls, size: tuple[int, ...], patch: tuple[int, ...], channels: int) -> "TokenGrid":
        """Returns the grid that cuts `size` into patches.

        Raises:
          UserError: the size is smaller than a patch or not a multiple of it.
        """
        size, patch = tuple(size), tuple(patch)
        shown = "x".join(map(str, size)), "x".join(map(str, patch))
        if len(size) != len(patch):
            raise UserError(
                f"A patch of {shown[1]} does not fit data of {shown[0]}: give one extent per axis."
            )
        if any(s < p for s, p in zip(size, patch, strict=True)):
            raise UserError(
                f"An input of {shown[0]} is smaller than a patch of {shown[1]}: "
                "enlarge the input's size or reduce system.encoder.patch_size."
            )
        if any(p < 1 or s % p for s, p in zip(size, patch, strict=True)):
            raise UserError(
                f"An input of {shown[0]} is not divisible by the patch of {shown[1]}: "
                "change the input's size or system.encoder.patch_size."
            )
        return cls(tuple(s // p for s, p in zip(size, patch, strict=True)), patch, channels)

"""RandAugment: a few random distortions of an image, by Pillow, on the host.

No library that this project depends on has it, and those that do (timm, torchvision, Keras) bring a
whole framework along. The distortions themselves are Pillow's.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from maskjax.errors import UserError

_HIGHEST = 10.0  # magnitude
_ROTATION = 30.0  # degrees, at the highest magnitude, as all of these
_SHEAR = 0.3
_TRANSLATION = 0.45  # of the size
_ENHANCEMENT = 0.9  # distance of the factor from 1
_ADDITION = 110  # grey levels
_MIDDLE = 128  # darker pixels are those that are made brighter

Fill = tuple[int, ...]
# (image, magnitude as a share of the highest, -1 or 1, what comes in at the border) -> image
Operation = Callable[[Image.Image, float, int, Fill], Image.Image]


@dataclasses.dataclass(frozen=True)
class RandAugment:
    """Applies randomly chosen distortions (Cubuk et al., 2020, arXiv 1909.13719).

    The rules are those of timm's `rand-m9-mstd0.5-inc1`, which MAE fine-tunes with: of fifteen
    operations some are chosen with replacement; each is then applied or not by a coin, with a
    magnitude from N(magnitude, deviation), cut to [0, 10]. All distort more with a greater
    magnitude. What has a direction is turned around by a coin. Interpolation is bicubic, and what
    comes in at the border has the mean colour.

    Attributes:
      magnitude: mean of the magnitudes, in [0, 10].
      deviation: of the magnitudes.
      operations: chosen for each image.
      probability: of applying one that was chosen.

    Raises:
      UserError: a value that has no meaning.
    """

    magnitude: float = 9.0
    deviation: float = 0.5
    operations: int = 2
    probability: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.magnitude <= _HIGHEST or self.deviation < 0:
            raise UserError(
                f"RandAugment has the magnitude {self.magnitude} and the deviation "
                f"{self.deviation}: give 0 to {_HIGHEST:g}, and 0 or more."
            )
        if self.operations < 1 or not 0 <= self.probability <= 1:
            raise UserError(
                f"RandAugment has {self.operations} operations with the probability "
                f"{self.probability}: give 1 or more, and 0 to 1."
            )

    def __call__(self, rng: np.random.Generator, image: np.ndarray, fill: Fill) -> np.ndarray:
        """Distorts one image.

        Args:
          rng: source of the draws.
          image: uint8 [h, w, 1] or [h, w, 3].
          fill: colour of what comes in at the border, in [0, 255], one value per channel.

        Returns:
          uint8 of the same shape.
        """
        grey = image.shape[-1] == 1
        picture = Image.fromarray(np.ascontiguousarray(image[..., 0] if grey else image))
        names = list(OPERATIONS)
        for choice in rng.integers(0, len(names), self.operations):
            # Drawn whether needed or not, so that one operation does not shift the draws of others.
            use, magnitude = rng.random(), rng.normal(self.magnitude, self.deviation)
            sign = 1 if rng.random() < 0.5 else -1
            if use < self.probability:
                share = min(max(magnitude, 0.0), _HIGHEST) / _HIGHEST
                picture = OPERATIONS[names[choice]](picture, share, sign, fill)
        distorted = np.asarray(picture)
        return distorted[..., None] if grey else distorted


def _affine(picture: Image.Image, matrix: tuple[float, ...], fill: Fill) -> Image.Image:
    """Takes pixel (x, y) from (a x + b y + c, d x + e y + f)."""
    return picture.transform(
        picture.size, Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC, fillcolor=_of(fill)
    )


def _of(fill: Fill) -> int | Fill:
    return fill[0] if len(fill) == 1 else fill


def _rotate(picture: Image.Image, share: float, sign: int, fill: Fill) -> Image.Image:
    degrees = sign * share * _ROTATION
    return picture.rotate(degrees, Image.Resampling.BICUBIC, fillcolor=_of(fill))


def _shear_x(picture: Image.Image, share: float, sign: int, fill: Fill) -> Image.Image:
    return _affine(picture, (1, sign * share * _SHEAR, 0, 0, 1, 0), fill)


def _shear_y(picture: Image.Image, share: float, sign: int, fill: Fill) -> Image.Image:
    return _affine(picture, (1, 0, 0, sign * share * _SHEAR, 1, 0), fill)


def _translate_x(picture: Image.Image, share: float, sign: int, fill: Fill) -> Image.Image:
    return _affine(picture, (1, 0, sign * share * _TRANSLATION * picture.width, 0, 1, 0), fill)


def _translate_y(picture: Image.Image, share: float, sign: int, fill: Fill) -> Image.Image:
    return _affine(picture, (1, 0, 0, 0, 1, sign * share * _TRANSLATION * picture.height), fill)


def _posterise(picture: Image.Image, share: float, sign: int, fill: Fill) -> Image.Image:
    del sign, fill
    kept = 0x100 - (1 << (4 + int(share * 4)))  # the upper bits: four to none, which is black
    # Pillow's own function refuses to keep none.
    return picture.point([level & kept for level in range(256)] * len(picture.getbands()))


def _solarise(picture: Image.Image, share: float, sign: int, fill: Fill) -> Image.Image:
    del sign, fill
    return ImageOps.solarize(picture, 256 - int(share * 256))


def _solarise_add(picture: Image.Image, share: float, sign: int, fill: Fill) -> Image.Image:
    del sign, fill
    added = int(share * _ADDITION)
    levels = [min(255, level + added) if level < _MIDDLE else level for level in range(256)]
    return picture.point(levels * len(picture.getbands()))


def _plain(operation: Callable[[Image.Image], Image.Image]) -> Operation:
    """Returns an operation that has no magnitude."""
    return lambda picture, share, sign, fill: operation(picture)


def _enhance(kind: type) -> Operation:
    """Returns an operation that makes more or less of a property."""

    def enhance(picture: Image.Image, share: float, sign: int, fill: Fill) -> Image.Image:
        del fill
        return kind(picture).enhance(1.0 + sign * share * _ENHANCEMENT)

    return enhance


OPERATIONS: dict[str, Operation] = {
    "auto_contrast": _plain(ImageOps.autocontrast),
    "equalise": _plain(ImageOps.equalize),
    "invert": _plain(ImageOps.invert),
    "rotate": _rotate,
    "posterise": _posterise,
    "solarise": _solarise,
    "solarise_add": _solarise_add,
    "colour": _enhance(ImageEnhance.Color),
    "contrast": _enhance(ImageEnhance.Contrast),
    "brightness": _enhance(ImageEnhance.Brightness),
    "sharpness": _enhance(ImageEnhance.Sharpness),
    "shear_x": _shear_x,
    "shear_y": _shear_y,
    "translate_x": _translate_x,
    "translate_y": _translate_y,
}

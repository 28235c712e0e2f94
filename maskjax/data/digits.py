"""The handwritten digits that come with scikit-learn: a real data set that needs no download."""

import dataclasses
import functools
from typing import Any

import numpy as np

from maskjax.data.records import unknown_split
from maskjax.errors import UserError

SPLITS = ("train", "test", "all")


@dataclasses.dataclass(frozen=True)
class Digits:
    """1797 grey images of 8 x 8 pixels in ten classes.

    Splits: `train` (1442 records), `test` (355: every fifth of each class, in the order of the
    file), `all`. The source has 17 grey levels, 0..16; they are spread over 0..255.

    Source: the test part of "Optical Recognition of Handwritten Digits", UCI repository, as
    `sklearn.datasets.load_digits`.
    """

    def open(self, split: str) -> "DigitsRecords":
        """Opens a split.

        Raises:
          UserError: there is no such split, or scikit-learn is not installed.
        """
        if split not in SPLITS:
            raise unknown_split(split, "data.Digits", SPLITS)
        images, labels = _load()
        is_test = np.zeros(len(labels), bool)
        for label in range(10):
            is_test[np.flatnonzero(labels == label)[4::5]] = True
        chosen = np.ones_like(is_test) if split == "all" else is_test == (split == "test")
        return DigitsRecords(images[chosen], labels[chosen], split)


@functools.cache  # it is parsed from text
def _load() -> tuple[np.ndarray, np.ndarray]:
    """Returns all images, uint8 [N, 8, 8, 1], and labels, int32 [N]."""
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError:
        raise UserError(
            "data.Digits needs scikit-learn, which is not installed: run "
            "`pip install scikit-learn`."
        ) from None
    digits = load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)[..., None]
    return images, digits.target.astype(np.int32)


@dataclasses.dataclass(frozen=True)
class DigitsRecords:
    """Records of `Digits`: images uint8 [N, 8, 8, 1], labels int32 [N]."""

    images: np.ndarray
    labels: np.ndarray
    split: str
    num_classes: int = 10
    label_names: tuple[str, ...] = tuple("0123456789")

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> dict[str, Any]:
        return {"image": self.images[i], "label": int(self.labels[i])}

    def describe(self, i: int) -> str:
        """Returns the number and split of a record."""
        return f"record {i} of digits/{self.split}"

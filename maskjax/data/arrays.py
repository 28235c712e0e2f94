"""Images in one NumPy file."""

import dataclasses
import os
import zipfile
from typing import Any

import numpy as np

from maskjax.data.records import unknown_split
from maskjax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Arrays:
    """A `.npz` or `.npy` file of uint8 images [N, H, W, C] or [N, H, W].

    In a `.npz`, the key `image` is the split `all` and a key such as `train_image` is the split
    `train`; labels, if there are any, have the keys `label` or `train_label`: integers [N] from 0.
    Names of the classes may be under `label_names`. A `.npy` holds images only; its split is
    `all`. A `.npy` is mapped into memory, a `.npz` is loaded.

    Attributes:
      path: the file.
      image_key: key of the images, without the split.
      label_key: key of the labels, without the split.
    """

    path: str
    image_key: str = "image"
    label_key: str = "label"

    def open(self, split: str) -> "ArrayRecords":
        """Opens a split.

        Raises:
          UserError: the file, split or key does not exist, or the arrays are not as described.
        """
        path = os.path.expanduser(self.path)
        if not os.path.isfile(path):
            raise UserError(
                f"There is no file '{self.path}': set data.source.path to a .npz or .npy file."
            )
        try:
            file = np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, OSError, zipfile.BadZipFile) as error:
            raise UserError(
                f"'{self.path}' cannot be read as a .npz or .npy file of plain arrays: {error}."
            ) from None
        if isinstance(file, np.ndarray):
            if split != "all":
                raise unknown_split(split, f"'{self.path}'", ["all"])
            return ArrayRecords(self, split, self._checked(file, "the array"), None, None, None)
        with file:
            return self._open_archive(file, split)

    def _open_archive(self, file: Any, split: str) -> "ArrayRecords":
        suffix = f"_{self.image_key}"
        splits = {k[: -len(suffix)]: f"{k[: -len(suffix)]}_" for k in file if k.endswith(suffix)}
        if self.image_key in file:
            splits["all"] = ""
        if not splits:
            raise UserError(
                f"'{self.path}' has no array '{self.image_key}' or 'train_{self.image_key}'; it "
                f"has: {', '.join(file)}. Set data.source.image_key to the one with the images."
            )
        if split not in splits:
            raise unknown_split(split, f"'{self.path}'", splits)
        image_key = splits[split] + self.image_key
        images = self._checked(self._read(file, image_key), f"the array '{image_key}'")
        label_key = splits[split] + self.label_key
        if label_key not in file:
            return ArrayRecords(self, split, images, None, None, None)
        labels = self._labels(file, label_key)
        if len(labels) != len(images):
            raise UserError(
                f"'{self.path}' has {len(images)} images in '{image_key}' but {len(labels)} "
                f"labels in '{label_key}': the numbers have to be equal."
            )
        # Over all splits, so that training and test agree even if one lacks the last class.
        keys = [prefix + self.label_key for prefix in splits.values()]
        num_classes = 1 + max(
            int(self._labels(file, key).max(initial=0)) for key in keys if key in file
        )
        names = None
        if "label_names" in file:
            names = tuple(str(name) for name in self._read(file, "label_names"))
            num_classes = max(num_classes, len(names))
            names = names if len(names) == num_classes else None
        return ArrayRecords(self, split, images, labels, num_classes, names)

    def _read(self, file: Any, key: str) -> np.ndarray:
        try:
            return file[key]
        except ValueError:
            raise UserError(
                f"'{key}' in '{self.path}' holds Python objects: save plain arrays of numbers."
            ) from None

    def _checked(self, images: np.ndarray, name: str) -> np.ndarray:
        if images.dtype != np.uint8:
            raise UserError(
                f"'{self.path}': {name} is {images.dtype}, but images have to be uint8 in 0..255; "
                f"values in [0, 1] are converted by `np.round(255 * x).astype(np.uint8)`."
            )
        if images.ndim not in (3, 4):
            raise UserError(
                f"'{self.path}': {name} has the shape {images.shape}, but images have to be "
                f"[N, H, W, C] or [N, H, W]."
            )
        return images if images.ndim == 4 else images[..., None]

    def _labels(self, file: Any, key: str) -> np.ndarray:
        labels = self._read(file, key)
        if labels.ndim == 2 and labels.shape[1] == 1:
            labels = labels[:, 0]
        if labels.ndim != 1 or labels.dtype.kind not in "iu" or labels.min(initial=0) < 0:
            raise UserError(
                f"'{self.path}': the labels '{key}' have to be integers [N] counted from 0, but "
                f"are {labels.dtype} {list(labels.shape)}."
            )
        return labels.astype(np.int32)


@dataclasses.dataclass(frozen=True)
class ArrayRecords:
    """Records of `Arrays`: images uint8 [N, H, W, C], labels int32 [N] or None."""

    source: Arrays
    split: str
    images: np.ndarray
    labels: np.ndarray | None
    num_classes: int | None
    label_names: tuple[str, ...] | None

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> dict[str, Any]:
        record = {"image": np.asarray(self.images[i])}
        if self.labels is not None:
            record["label"] = int(self.labels[i])
        return record

    def __reduce__(self):
        # A worker process opens the file itself; sending the arrays would take longer.
        return self.source.open, (self.split,)

    def describe(self, i: int) -> str:
        """Returns number, split and file of a record."""
        return f"record {i} of split {self.split} in {self.source.path}"

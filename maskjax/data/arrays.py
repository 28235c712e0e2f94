"""Images, or any other modalities, in one NumPy file."""

import dataclasses
import os
import re
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from maskjax.config import nearest
from maskjax.data.decode import decode_image
from maskjax.data.records import unknown_split
from maskjax.errors import UserError

# What `fields` says of one input: KEY, KEY:jpeg or KEY[FIRST:LAST].
_FIELD = re.compile(r"(?P<key>[^:\[\]]+)(:(?P<form>\w+)|\[(?P<first>\d*):(?P<last>\d*)\])?")


@dataclasses.dataclass(frozen=True)
class Arrays:
    """A `.npz` or `.npy` file: uint8 images [N, H, W, C] or [N, H, W], or what `fields` names.

    In a `.npz`, the key `image` is the split `all` and a key such as `train_image` is the split
    `train`; labels, if there are any, have the keys `label` or `train_label`: integers [N] from 0.
    A boolean array `is_test` [N] divides `all` into the splits `train` and `test`. Names of the
    classes may be under `label_names`. A `.npy` holds images only; its split is `all`. A `.npy` is
    mapped into memory, a `.npz` is loaded.

    Attributes:
      path: the file.
      image_key: key of the images, without the split.
      label_key: key of the labels, without the split; their names may also be under KEY_names.
      fields: {input: where its values are}, instead of `image_key`; empty: only images.
        "KEY": an array [N, ...] of any type. Text [N] gives a string a record, [N, n] a tuple of
        n strings; uint8 [N, H, W] counts as pictures of one channel.
        "KEY:jpeg": compressed pictures (JPEG, PNG, WebP), all bytes in one uint8 array;
        picture i is bytes[o[i]:o[i+1]] with the N + 1 offsets o under KEY, `_jpeg` replaced by
        `_offsets`.
        "KEY[a:b]": the channels a to b - 1 of the last axis, e.g. rgb="image[0:3]".
      test_key: key of the boolean array that divides `all`.
      id_key: key of names [N] by which `Paired` aligns records; None: there are none.
    """

    path: str
    image_key: str = "image"
    label_key: str = "label"
    fields: Mapping[str, str] = dataclasses.field(default_factory=dict)
    test_key: str = "is_test"
    id_key: str | None = None

    def __post_init__(self) -> None:
        for name, text in self._fields.items():
            match = _FIELD.fullmatch(text)
            if not match or match["form"] not in (None, "jpeg"):
                raise UserError(
                    f"fields.{name} of data.Arrays is '{text}': write KEY, KEY:jpeg or KEY[a:b]."
                )

    @property
    def _fields(self) -> Mapping[str, str]:
        return self.fields or {"image": self.image_key}

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
            if self.fields:
                raise UserError(f"'{self.path}' holds one array: data.source.fields needs a .npz.")
            images = _Column(self._checked(file, "the array"))
            return ArrayRecords(self, split, {"image": images}, np.arange(len(file)))
        with file:
            return self._open_archive(file, split)

    def _open_archive(self, file: Any, split: str) -> "ArrayRecords":
        splits = self._splits(file)
        divided = "all" in splits and self.test_key in file
        if split not in splits and not (divided and split in ("train", "test")):
            raise unknown_split(
                split, f"'{self.path}'", splits | dict.fromkeys(["train", "test"] * divided)
            )
        prefix = splits.get(split, "")
        columns = {
            name: self._column(file, name, prefix, text) for name, text in self._fields.items()
        }
        self._check_lengths(columns, prefix)
        first = next(iter(columns.values()))
        rows = np.arange(len(first))
        if split not in splits:
            rows = rows[self._is_test(file, len(rows)) == (split == "test")]
        records = ArrayRecords(self, split, columns, rows, ids=self._ids(file, prefix, len(first)))
        label_key = prefix + self.label_key
        if label_key not in file:
            return records
        labels = self._labels(file, label_key)
        if len(labels) != len(first):
            key = prefix + _key(next(iter(self._fields.values())))
            what = "images" if not self.fields else "records"
            raise UserError(
                f"'{self.path}' has {len(first)} {what} in '{key}' but {len(labels)} "
                f"labels in '{label_key}': the numbers have to be equal."
            )
        # Over all splits, so that training and test agree even if one lacks the last class.
        keys = [prefix + self.label_key for prefix in splits.values()]
        num_classes = 1 + max(
            int(self._labels(file, key).max(initial=0)) for key in keys if key in file
        )
        names = None
        for key in ("label_names", f"{self.label_key}_names"):
            if key in file:
                names = tuple(str(name) for name in self._read(file, key))
                num_classes = max(num_classes, len(names))
                names = names if len(names) == num_classes else None
                break
        return dataclasses.replace(
            records, labels=labels, num_classes=num_classes, label_names=names
        )

    def _splits(self, file: Any) -> dict[str, str]:
        """Returns {split: prefix of its keys}, judged by the key of the first field."""
        key = _key(next(iter(self._fields.values())))
        splits = {k[: -len(key) - 1]: k[: -len(key)] for k in file if k.endswith(f"_{key}")}
        if key in file:
            splits["all"] = ""
        if not splits:
            where = "data.source.fields" if self.fields else "data.source.image_key"
            what = "one that is there" if self.fields else "the one with the images"
            raise UserError(
                f"'{self.path}' has no array '{key}' or 'train_{key}'; it "
                f"has: {', '.join(file)}. Set {where} to {what}."
            )
        return splits

    def _column(self, file: Any, name: str, prefix: str, text: str) -> "_Column":
        match = _parsed(text)
        key = prefix + match["key"]
        if key not in file:
            raise UserError(
                f"'{self.path}' has no array '{key}' for the input '{name}'{nearest(key, file)}"
            )
        values = self._read(file, key)
        if not self.fields:
            return _Column(self._checked(values, f"the array '{key}'"))
        if match["form"] == "jpeg":
            return _Column(values, self._offsets(file, key, values))
        if values.ndim == 0 or values.dtype.kind == "V":
            raise UserError(f"'{self.path}': '{key}' is no array with one row per record.")
        if values.dtype == np.uint8 and values.ndim == 3:
            values = values[..., None]
        if match["first"] is not None:
            values = self._channels(values, key, match)
        return _Column(values)

    def _channels(self, values: np.ndarray, key: str, match: re.Match) -> np.ndarray:
        first, last = int(match["first"] or 0), int(match["last"] or values.shape[-1])
        if values.ndim < 2 or not 0 <= first < last <= values.shape[-1]:
            raise UserError(
                f"'{self.path}': '{key}' is {list(values.shape)}, it has no channels "
                f"{first} to {last - 1}."
            )
        return values[..., first:last]

    def _offsets(self, file: Any, key: str, data: np.ndarray) -> np.ndarray:
        name = f"{key.removesuffix('_jpeg')}_offsets"
        if name not in file:
            raise UserError(
                f"'{self.path}' has compressed pictures '{key}' but no '{name}', which says where "
                "each of them begins."
            )
        offsets = self._read(file, name)
        if (
            data.dtype != np.uint8
            or data.ndim != 1
            or offsets.dtype.kind not in "iu"
            or offsets.ndim != 1
            or len(offsets) < 1
            or offsets[0] != 0
            or offsets[-1] != len(data)
            or (np.diff(offsets.astype(np.int64)) < 0).any()
        ):
            raise UserError(
                f"'{self.path}': '{name}' has to rise from 0 to the {data.size} bytes of '{key}'."
            )
        return offsets

    def _check_lengths(self, columns: Mapping[str, "_Column"], prefix: str) -> None:
        lengths = {name: len(column) for name, column in columns.items()}
        if len(set(lengths.values())) > 1:
            shown = ", ".join(f"{name} {n}" for name, n in lengths.items())
            where = f" (split '{prefix[:-1]}')" if prefix else ""
            raise UserError(
                f"The inputs of '{self.path}'{where} differ in their number of records: {shown}."
            )

    def _is_test(self, file: Any, count: int) -> np.ndarray:
        chosen = self._read(file, self.test_key)
        if chosen.dtype != bool or chosen.shape != (count,):
            raise UserError(
                f"'{self.path}': '{self.test_key}' has to be bool [{count}], but is "
                f"{chosen.dtype} {list(chosen.shape)}."
            )
        return chosen

    def _ids(self, file: Any, prefix: str, count: int) -> np.ndarray | None:
        if self.id_key is None:
            return None
        key = prefix + self.id_key
        if key not in file:
            raise UserError(f"'{self.path}' has no names '{key}'{nearest(key, file)}")
        ids = self._read(file, key)
        if ids.shape != (count,):
            raise UserError(
                f"'{self.path}': the names '{key}' have the shape {list(ids.shape)}, "
                f"but there are {count} records."
            )
        return ids

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


def _key(text: str) -> str:
    return _parsed(text)["key"]


def _parsed(text: str) -> re.Match[str]:
    match = _FIELD.fullmatch(text)
    assert match is not None  # refused at construction
    return match


@dataclasses.dataclass(frozen=True)
class _Column:
    """The values of one input: an array by rows, or compressed pictures with their offsets."""

    values: np.ndarray
    offsets: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.values) if self.offsets is None else len(self.offsets) - 1

    def __getitem__(self, row: int) -> Any:
        if self.offsets is not None:
            first, last = self.offsets[row : row + 2]
            return decode_image(self.values[first:last].tobytes())
        value = self.values[row]
        if self.values.dtype.kind != "U":
            return np.asarray(value)
        return str(value) if value.ndim == 0 else tuple(str(text) for text in value.ravel())


@dataclasses.dataclass(frozen=True)
class ArrayRecords:
    """Records of `Arrays`: `rows` of its columns, with labels int32 of all rows or None."""

    source: Arrays
    split: str
    columns: Mapping[str, _Column]
    rows: np.ndarray
    ids: np.ndarray | None = None
    labels: np.ndarray | None = None
    num_classes: int | None = None
    label_names: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> dict[str, Any]:
        row = int(self.rows[i])
        record = {name: column[row] for name, column in self.columns.items()}
        if self.labels is not None:
            record["label"] = int(self.labels[row])
        return record

    def __reduce__(self) -> tuple[Any, ...]:
        # A worker process opens the file itself; sending the arrays would take longer.
        return self.source.open, (self.split,)

    def describe(self, i: int) -> str:
        """Returns number, split and file of a record."""
        return f"record {i} of split {self.split} in {self.source.path}"

    def names(self) -> list[str] | None:
        """Returns the name of every record, by which `Paired` aligns sources."""
        return None if self.ids is None else [str(self.ids[row]) for row in self.rows]

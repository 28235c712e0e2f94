"""Data sets that TensorFlow Datasets prepared on disk, read without TensorFlow."""

import dataclasses
import os
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from maskjax.config import nearest
from maskjax.data.audio import Recording
from maskjax.data.decode import decode_image
from maskjax.data.records import unknown_split
from maskjax.errors import UserError


@dataclasses.dataclass(frozen=True)
class TFDS:
    """A data set in ArrayRecord format, as `tfds.builder(name).download_and_prepare` writes it.

    Splits are those of the data set; slices such as `train[:90%]` work. Reading needs neither
    TensorFlow nor the code that generated the data.

    Attributes:
      name: `cifar10`, `cifar10:3.0.2`, `imagenet2012_subset/10pct`, ...
      data_dir: folder that holds the data sets; or the folder of one version of this data set,
        with `dataset_info.json`. None: `TFDS_DATA_DIR` or `~/tensorflow_datasets`.
      image_key: feature that holds the image.
      label_key: feature that holds the label; one that does not exist, or is not a ClassLabel,
        gives records without labels.
      fields: {input: feature}, instead of `image_key`, e.g. dict(audio="audio"); empty: only
        images. Images are decoded, sounds get their rate if the data set knows it, text becomes
        str, numbers and tensors are given as they are.
    """

    name: str
    data_dir: str | None = None
    image_key: str = "image"
    label_key: str = "label"
    fields: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def open(self, split: str) -> "TFDSRecords":
        """Opens a split.

        Raises:
          UserError: the data set is not there or not in ArrayRecord format, has no such split or
            no such feature, or tensorflow_datasets is not installed.
        """
        try:
            import tensorflow_datasets as tfds
        except ModuleNotFoundError:
            raise UserError(
                "data.TFDS needs tensorflow_datasets, which is not installed: run "
                "`pip install tensorflow-datasets array-record`."
            ) from None
        builder = self._builder(tfds)
        features = dict(builder.info.features.items())
        fields = self._fields(tfds, features)
        splits = list(builder.info.splits)
        if re.split(r"[\[+]", split)[0] not in (*splits, "all"):
            raise unknown_split(split, f"The data set '{self.name}'", splits)
        try:
            # The image is decoded here: the decoder of tfds gives other pixels when OpenCV
            # happens to be installed.
            images = [f.key for f in fields if f.kind == "image"]
            source = builder.as_data_source(
                split, decoders=dict.fromkeys(images, tfds.decode.SkipDecoding())
            )
        except NotImplementedError:
            raise UserError(
                f"The data set '{self.name}' in '{builder.data_dir}' is not in ArrayRecord "
                f"format: {self._how_to_prepare()}."
            ) from None
        except ValueError as error:
            reason = str(error).splitlines()[0]
            raise UserError(
                f"The data set '{self.name}' cannot be read at '{split}': {reason} Write a split "
                f"({', '.join(splits)}) or a slice such as 'train[:90%]'."
            ) from None
        label = features.get(self.label_key)
        classes = label if isinstance(label, tfds.features.ClassLabel) else None
        names = tuple(classes.names) if classes is not None else None
        num_classes = classes.num_classes if classes is not None else None
        return TFDSRecords(self, split, source, num_classes, names, fields)

    def _fields(self, tfds: Any, features: Mapping[str, Any]) -> tuple["_Field", ...]:
        """Returns how the values of a record are made of the features of the data set."""
        if not self.fields and not isinstance(features.get(self.image_key), tfds.features.Image):
            images = [k for k, f in features.items() if isinstance(f, tfds.features.Image)]
            raise UserError(
                f"The data set '{self.name}' has no image '{self.image_key}'; its images are: "
                f"{', '.join(images) or 'none'}. Set data.source.image_key, or data.source.fields "
                f"for other data; it has: {', '.join(features)}."
            )
        found = []
        for name, key in (self.fields or {"image": self.image_key}).items():
            feature = features.get(key)
            if feature is None:
                raise UserError(
                    f"The data set '{self.name}' has no feature '{key}'{nearest(key, features)}"
                )
            kind = "other"
            for known in ("Image", "Audio", "Text"):
                if isinstance(feature, getattr(tfds.features, known)):
                    kind = known.lower()
            found.append(_Field(name, key, kind, getattr(feature, "sample_rate", None)))
        return tuple(found)

    def _builder(self, tfds: Any) -> Any:
        data_dir = os.path.expanduser(self.data_dir) if self.data_dir else None
        if data_dir and os.path.exists(os.path.join(data_dir, "dataset_info.json")):
            builder = tfds.builder_from_directory(data_dir)
            if self.name.split(":")[0].split("/")[0] != builder.name:
                raise UserError(
                    f"'{self.data_dir}' holds the data set '{builder.name}', not '{self.name}': "
                    f"correct data.source.name or data.source.data_dir."
                )
            return builder
        try:
            # Unlike `tfds.builder`, this looks at the disk only: neither network nor the module
            # that generates the data.
            return tfds.core.read_only_builder.builder_from_files(self.name, data_dir=data_dir)
        except (tfds.core.DatasetNotFoundError, ValueError):
            where = self.data_dir or os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")
            raise UserError(
                f"The data set '{self.name}' is not prepared in '{where}': set "
                f"data.source.data_dir to the folder that holds it, or {self._how_to_prepare()}."
            ) from None

    def _how_to_prepare(self) -> str:
        folder = f", data_dir='{self.data_dir}'" if self.data_dir else ""
        return (
            'write it with (this step needs TensorFlow) `python -c "import tensorflow_datasets '
            f"as tfds; tfds.builder('{self.name}'{folder}, "
            "file_format='array_record').download_and_prepare()\"`"
        )


@dataclasses.dataclass(frozen=True)
class _Field:
    """One value of a record: name of the input, feature, what it is, and the rate of a sound."""

    name: str
    key: str
    kind: str
    rate: int | None

    def value(self, value: Any) -> Any:
        """Returns what an input takes, of what the data source gives."""
        if self.kind == "image":
            return decode_image(value)
        if self.kind == "text":
            return value.decode() if isinstance(value, bytes) else str(value)
        if self.kind == "audio":
            samples = np.asarray(value).astype(np.int16)
            return Recording(samples, self.rate) if self.rate else samples
        return value


@dataclasses.dataclass(frozen=True)
class TFDSRecords:
    """Records of `TFDS`."""

    part: TFDS
    split: str
    data: Any  # a sequence of dicts with undecoded images
    num_classes: int | None
    label_names: tuple[str, ...] | None
    fields: tuple[_Field, ...]

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, i: int) -> dict[str, Any]:
        example = self.data[i]
        record = {field.name: field.value(example[field.key]) for field in self.fields}
        if self.num_classes is not None:
            record["label"] = int(example[self.part.label_key])
        return record

    def __reduce__(self) -> tuple[Any, ...]:
        return self.part.open, (self.split,)

    def describe(self, i: int) -> str:
        """Returns number, data set and split of a record."""
        return f"record {i} of {self.part.name}/{self.split}"

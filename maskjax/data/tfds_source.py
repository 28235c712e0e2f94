"""Data sets that TensorFlow Datasets prepared on disk, read without TensorFlow."""

import dataclasses
import os
import re
from typing import Any

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
    """

    name: str
    data_dir: str | None = None
    image_key: str = "image"
    label_key: str = "label"

    def open(self, split: str) -> "TFDSRecords":
        """Opens a split.

        Raises:
          UserError: the data set is not there or not in ArrayRecord format, has no such split or
            no such image feature, or tensorflow_datasets is not installed.
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
        image, label = features.get(self.image_key), features.get(self.label_key)
        if not isinstance(image, tfds.features.Image):
            images = [k for k, f in features.items() if isinstance(f, tfds.features.Image)]
            raise UserError(
                f"The data set '{self.name}' has no image '{self.image_key}'; its images are: "
                f"{', '.join(images) or 'none'}. Set data.source.image_key."
            )
        splits = list(builder.info.splits)
        if re.split(r"[\[+]", split)[0] not in (*splits, "all"):
            raise unknown_split(split, f"The data set '{self.name}'", splits)
        try:
            # The image is decoded here: the decoder of tfds gives other pixels when OpenCV
            # happens to be installed.
            source = builder.as_data_source(
                split, decoders={self.image_key: tfds.decode.SkipDecoding()}
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
        classes = label if isinstance(label, tfds.features.ClassLabel) else None
        names = tuple(classes.names) if classes is not None else None
        return TFDSRecords(
            self, split, source, classes.num_classes if classes is not None else None, names
        )

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
class TFDSRecords:
    """Records of `TFDS`."""

    part: TFDS
    split: str
    data: Any  # a sequence of dicts with the undecoded image
    num_classes: int | None
    label_names: tuple[str, ...] | None

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, i: int) -> dict[str, Any]:
        example = self.data[i]
        record = {"image": decode_image(example[self.part.image_key])}
        if self.num_classes is not None:
            record["label"] = int(example[self.part.label_key])
        return record

    def __reduce__(self):
        return self.part.open, (self.split,)

    def describe(self, i: int) -> str:
        """Returns number, data set and split of a record."""
        return f"record {i} of {self.part.name}/{self.split}"

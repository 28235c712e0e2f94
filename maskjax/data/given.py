"""Data that somebody hands over, outside of any data set: arrays, or pictures by their paths."""

import dataclasses
import glob
import os
from collections.abc import Mapping, Sequence
from typing import Any

from maskjax.data.decode import decode_image
from maskjax.data.folder import EXTENSIONS, list_images
from maskjax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Given:
    """Records of values in memory, or of whatever gives one value per number.

    Attributes:
      values: {input: one value per record}, all of one length.

    Raises:
      UserError: the lengths differ.
    """

    values: Mapping[str, Sequence[Any]]

    num_classes = None
    label_names = None

    def __post_init__(self) -> None:
        lengths = {name: len(values) for name, values in self.values.items()}
        if len(set(lengths.values())) > 1:
            shown = ", ".join(f"{name} {n}" for name, n in lengths.items())
            raise UserError(f"The inputs differ in their number of examples: {shown}.")

    def __len__(self) -> int:
        return len(next(iter(self.values.values()), ()))

    def __getitem__(self, i: int) -> dict[str, Any]:
        return {name: values[i] for name, values in self.values.items()}

    def describe(self, i: int) -> str:
        """Returns the path of a record, or its number."""
        files = [v.files[i] for v in self.values.values() if isinstance(v, ImageFiles)]
        return f"'{files[0]}'" if files else f"example {i}"


@dataclasses.dataclass(frozen=True)
class ImageFiles(Sequence):
    """Pictures in files, decoded when they are asked for: uint8 [h, w, c].

    Attributes:
      files: their paths.
    """

    files: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: Any) -> Any:
        with open(self.files[i], "rb") as file:
            return decode_image(file.read())


def find_images(where: str | os.PathLike) -> ImageFiles:
    """Finds pictures.

    Args:
      where: a file of any kind that can be decoded; a folder, of which all JPEG, PNG and WebP files
        at any depth are taken; or a pattern such as `photos/*.jpg`, `**` for any depth.

    Returns:
      The files, in the order of their paths.

    Raises:
      UserError: there are none.
    """
    path = os.path.expanduser(os.fspath(where))
    if os.path.isfile(path):
        return ImageFiles((path,))
    if os.path.isdir(path):
        files = list_images(path)
        if not files:
            raise UserError(f"The folder '{where}' holds no {', '.join(EXTENSIONS)} files.")
        return ImageFiles(tuple(files))
    files = sorted(filter(os.path.isfile, glob.glob(path, recursive=True)))
    if not files:
        what = "matches" if glob.has_magic(path) else "is called"
        raise UserError(
            f"No file {what} '{where}': give a picture, a folder of pictures, or a pattern."
        )
    return ImageFiles(tuple(files))

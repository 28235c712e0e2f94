"""Pictures in a folder."""

import dataclasses
import os
from typing import Any

from maskjax.data.decode import decode_image
from maskjax.data.records import unknown_split
from maskjax.errors import UserError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp")
# Names by which a subfolder is known to be a split rather than a class.
SPLITS = ("train", "training", "val", "valid", "validation", "test", "testing")


@dataclasses.dataclass(frozen=True)
class ImageFolder:
    """JPEG, PNG and WebP files under a folder, in the order of their paths.

    Splits: a split is the subfolder of that name; `all` is everything. Within a split, the
    subfolders are the classes, numbered by name over all the splits of the folder, and hold their
    images at any depth. A split with images directly in it has no labels. Hidden files and
    folders are left out; links are followed.

    Attributes:
      path: the folder.
    """

    path: str

    def open(self, split: str) -> "FolderRecords":
        """Opens a split.

        Raises:
          UserError: the folder or split does not exist, or holds no images.
        """
        path = os.path.abspath(os.path.expanduser(self.path))
        if not os.path.isdir(path):
            raise UserError(
                f"There is no folder '{self.path}': set data.source.path to a folder of "
                f"{_kinds()} files, with a subfolder per class if there are labels."
            )
        folders = _subfolders(path)
        splits = [name for name in folders if name in SPLITS]
        if split in folders:
            chosen = [split]
        elif split == "all":
            chosen = splits
        else:
            raise unknown_split(split, f"The folder '{self.path}'", [*(splits or folders), "all"])
        # Classes of every split, so that training and test number them alike.
        roots = [os.path.join(path, name) for name in chosen] or [path]
        family = [os.path.join(path, name) for name in {*chosen, *splits}] if chosen else roots
        names = tuple(sorted({name for root in family for name in _subfolders(root)}))
        number = {name: i for i, name in enumerate(names)}
        files, labels = [], []
        for root in roots:
            for file in _images(root):
                first, *rest = os.path.relpath(file, root).split(os.sep)
                files.append(os.path.relpath(file, path))
                labels.append(number[first] if rest else None)
        if not files:
            where = os.path.join(self.path, split) if chosen == [split] else self.path
            raise UserError(
                f"The folder '{where}' holds no images: put {_kinds()} files into it, with a "
                f"subfolder per class if there are labels."
            )
        if None in labels:
            return FolderRecords(path, tuple(files), None, None, None)
        return FolderRecords(path, tuple(files), tuple(labels), len(names), names)


@dataclasses.dataclass(frozen=True)
class FolderRecords:
    """Records of `ImageFolder`: paths relative to the folder, and a label for each, or None."""

    path: str
    files: tuple[str, ...]
    labels: tuple[int, ...] | None
    num_classes: int | None
    label_names: tuple[str, ...] | None

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int) -> dict[str, Any]:
        with open(self.describe(i), "rb") as file:
            record = {"image": decode_image(file.read())}
        if self.labels is not None:
            record["label"] = self.labels[i]
        return record

    def describe(self, i: int) -> str:
        """Returns the path of a record."""
        return os.path.join(self.path, self.files[i])


def _kinds() -> str:
    return ", ".join(EXTENSIONS)


def _subfolders(path: str) -> list[str]:
    """Returns the names of the folders in a folder, sorted, without the hidden ones."""
    with os.scandir(path) as entries:
        return sorted(e.name for e in entries if e.is_dir() and not _hidden(e.name))


def _hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"  # what macOS adds to archives


def _images(root: str) -> list[str]:
    """Returns the paths of all images under a folder, sorted."""
    found, visited = [], set()
    for folder, subfolders, files in os.walk(root, followlinks=True):
        if (real := os.path.realpath(folder)) in visited:
            subfolders.clear()  # a link back to where we have been
            continue
        visited.add(real)
        subfolders[:] = [name for name in subfolders if not _hidden(name)]
        found += [
            os.path.join(folder, name)
            for name in files
            if name.lower().endswith(EXTENSIONS) and not _hidden(name)
        ]
    return sorted(found)

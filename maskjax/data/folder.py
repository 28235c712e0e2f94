"""Pictures in a folder."""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from maskjax.data.decode import decode_image
from maskjax.data.records import Records, unknown_split
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
        classes = "with a subfolder per class if there are labels"
        layout, advice = f"{_kinds()} files, {classes}", f"{_kinds()} files into it, {classes}"
        return FolderRecords(
            **find_labelled(self.path, split, list_images, "images", layout, advice)
        )


def find_labelled(
    folder: str,
    split: str,
    list_files: Callable[[str], list[str]],
    what: str,
    layout: str,
    advice: str,
) -> dict[str, Any]:
    """Finds the files of a split, and their classes by the subfolders that they lie in.

    Args:
      folder: as the user gave it.
      split: the subfolder of that name; `all` is everything.
      list_files: root -> paths of the files below it, sorted.
      what: they are, for a sentence: "images".
      layout: what a folder has to hold, for a sentence.
      advice: what to put where, for a sentence.

    Returns:
      `path`, absolute; `files` relative to it; `labels`, `num_classes` and `label_names`, all None
      if a file lies in no subfolder.

    Raises:
      UserError: the folder or split does not exist, or holds no files.
    """
    path = os.path.abspath(os.path.expanduser(folder))
    if not os.path.isdir(path):
        raise UserError(
            f"There is no folder '{folder}': set data.source.path to a folder of {layout}."
        )
    folders = subfolders(path)
    splits = [name for name in folders if name in SPLITS]
    if split not in folders and split != "all":
        raise unknown_split(split, f"The folder '{folder}'", [*(splits or folders), "all"])
    chosen = [split] if split in folders else splits
    roots = [os.path.join(path, name) for name in chosen] or [path]
    # Classes of every split, so that training and test number them alike.
    family = [os.path.join(path, name) for name in {*chosen, *splits}] if chosen else roots
    names = tuple(sorted({name for root in family for name in subfolders(root)}))
    number = {name: i for i, name in enumerate(names)}
    files, labels = [], []
    for root in roots:
        for file in list_files(root):
            first, *rest = os.path.relpath(file, root).split(os.sep)
            files.append(os.path.relpath(file, path))
            labels.append(number[first] if rest else None)
    if not files:
        where = os.path.join(folder, split) if chosen == [split] else folder
        raise UserError(f"The folder '{where}' holds no {what}: put {advice}.")
    labelled = None not in labels
    return {
        "path": path,
        "files": tuple(files),
        "labels": tuple(labels) if labelled else None,
        "num_classes": len(names) if labelled else None,
        "label_names": names if labelled else None,
    }


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


def write_folder(records: Records, path: str | Path) -> None:
    """Writes images as PNG files that `ImageFolder` reads, in a subfolder per class if labelled.

    Args:
      records: with `image`, uint8 [h, w, 1 or 3]; the files are numbered as they are.
      path: of the folder, created.
    """
    names = records.label_names or tuple(map(str, range(records.num_classes or 0)))
    for i in range(len(records)):
        record = records[i]
        folder = Path(path, names[record["label"]]) if names else Path(path)
        folder.mkdir(parents=True, exist_ok=True)
        image = record["image"]
        picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
        picture.save(folder / f"{i:06d}.png")


def _kinds() -> str:
    return ", ".join(EXTENSIONS)


def subfolders(path: str) -> list[str]:
    """Returns the names of the folders in a folder, sorted, without the hidden ones."""
    with os.scandir(path) as entries:
        return sorted(e.name for e in entries if e.is_dir() and not hidden(e.name))


def hidden(name: str) -> bool:
    """Returns whether a file or folder is left out."""
    return name.startswith(".") or name == "__MACOSX"  # what macOS adds to archives


def list_images(root: str) -> list[str]:
    """Returns the paths of all images under a folder, sorted."""
    found, visited = [], set()
    for folder, subfolders, files in os.walk(root, followlinks=True):
        if (real := os.path.realpath(folder)) in visited:
            subfolders.clear()  # a link back to where we have been
            continue
        visited.add(real)
        subfolders[:] = [name for name in subfolders if not hidden(name)]
        found += [
            os.path.join(folder, name)
            for name in files
            if name.lower().endswith(EXTENSIONS) and not hidden(name)
        ]
    return sorted(found)

"""A folder of point clouds and meshes."""

import dataclasses
import os
from typing import Any

import numpy as np

from maskjax.data.folder import SPLITS
from maskjax.data.mesh_files import EXTENSIONS, read_shape, sample_surface
from maskjax.data.records import unknown_split
from maskjax.errors import UserError


@dataclasses.dataclass(frozen=True)
class MeshFolder:
    """PLY, OFF, XYZ (or TXT) and NPY files under a folder, in the order of their paths.

    A mesh, a file with faces, gives `samples` points drawn uniformly from its surface, always the
    same; a cloud gives its points. The coordinates are those of the file.

    Splits: a folder with the name of a split (train, test, ...) at any depth, so that both
    `train/CLASS/x.off` and `CLASS/train/x.off`, as in ModelNet, are found; `all` is everything.
    The first folder of a path that is no split is the class. Hidden files are left out. If no
    file of the whole folder has a class, there are no labels.

    Attributes:
      path: the folder.
      samples: points drawn from a mesh.
    """

    path: str
    samples: int = 8192

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise UserError(f"data.source.samples is {self.samples}: give 1 or more points.")

    def open(self, split: str) -> "MeshRecords":
        """Opens a split.

        Raises:
          UserError: the folder or split does not exist or holds no shapes, or only some files
            have a class.
        """
        path = os.path.abspath(os.path.expanduser(self.path))
        if not os.path.isdir(path):
            raise UserError(
                f"There is no folder '{self.path}': set data.source.path to a folder of "
                f"{', '.join(EXTENSIONS)} files."
            )
        found = [_Found.of(file) for file in _files(path)]
        if not found:
            raise UserError(f"The folder '{self.path}' holds no {', '.join(EXTENSIONS)} files.")
        splits = sorted({each.split for each in found if each.split is not None})
        if split != "all" and split not in splits:
            raise unknown_split(split, f"The folder '{self.path}'", [*splits, "all"])
        chosen = [each for each in found if split in ("all", each.split)]
        files = tuple(each.file for each in chosen)
        # Classes of every split, so that training and test number them alike.
        names = tuple(sorted({each.label for each in found if each.label is not None}))
        if not names:
            return MeshRecords(path, files, self.samples, None, None, None)
        if lost := [each.file for each in found if each.label is None]:
            raise UserError(
                f"'{os.path.join(self.path, lost[0])}' lies in no folder of a class, but other "
                "files do: move it into one, or out of the folder."
            )
        number = {name: i for i, name in enumerate(names)}
        labels = tuple(number[each.label] for each in chosen if each.label is not None)
        return MeshRecords(path, files, self.samples, labels, len(names), names)


@dataclasses.dataclass(frozen=True)
class _Found:
    """A file, relative to the folder, with what its path says."""

    file: str
    split: str | None
    label: str | None

    @classmethod
    def of(cls, file: str) -> "_Found":
        folders = file.split(os.sep)[:-1]
        split = next((name for name in folders if name in SPLITS), None)
        return cls(file, split, next((name for name in folders if name != split), None))


@dataclasses.dataclass(frozen=True)
class MeshRecords:
    """Records of `MeshFolder`: `points` float32 [n, 3] and, if there are classes, `label`."""

    path: str
    files: tuple[str, ...]
    samples: int
    labels: tuple[int, ...] | None
    num_classes: int | None
    label_names: tuple[str, ...] | None

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int) -> dict[str, Any]:
        vertices, triangles = read_shape(self.describe(i))
        points = vertices[:, :3]
        if len(triangles):
            points = sample_surface(vertices, triangles, self.samples, np.random.default_rng(i))
        record = {"points": points}
        if self.labels is not None:
            record["label"] = self.labels[i]
        return record

    def describe(self, i: int) -> str:
        """Returns the path of a record."""
        return os.path.join(self.path, self.files[i])


def _files(path: str) -> list[str]:
    """Returns all shapes under a folder, relative to it, sorted."""
    found = []
    for folder, subfolders, files in os.walk(path):
        subfolders[:] = [name for name in subfolders if not name.startswith((".", "__MACOSX"))]
        found += [
            os.path.relpath(os.path.join(folder, name), path)
            for name in files
            if name.lower().endswith(EXTENSIONS) and not name.startswith(".")
        ]
    return sorted(found)

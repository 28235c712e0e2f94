"""Videos in a folder: as frames, as arrays, or as video files."""

import dataclasses
import os
from typing import Any

import numpy as np

from maskjax.data.decode import decode_image
from maskjax.data.folder import EXTENSIONS as FRAMES
from maskjax.data.folder import find_labelled, hidden
from maskjax.errors import UserError

ARRAYS = (".npy", ".npz")
FILES = (".mp4", ".avi", ".mkv", ".mov", ".webm")


@dataclasses.dataclass(frozen=True)
class VideoFolder:
    """Videos under a folder, in the order of their paths.

    A video is a folder with its frames (JPEG, PNG or WebP files, in the order of their names), an
    array uint8 [T, H, W, C] or [T, H, W] in a `.npy` or under the key `video` of a `.npz`, or a
    video file (.mp4 and others), which needs the extra `video`.

    Splits: a split is the subfolder of that name; `all` is everything. Within a split, the
    subfolders are the classes, numbered by name over all the splits, and hold their videos at any
    depth. A split with a video directly in it has no labels. Hidden files and folders are left out.

    Attributes:
      path: the folder.
      array_key: key of the video in `.npz` files.
    """

    path: str
    array_key: str = "video"

    def open(self, split: str) -> "VideoRecords":
        """Opens a split.

        Raises:
          UserError: the folder or split does not exist, holds no videos, or holds video files that
            nothing here can decode.
        """
        found = find_labelled(
            self.path,
            split,
            _videos,
            "videos",
            "videos, each a folder of frames, an array or a video file",
            "a folder of frames, a .npy or .npz array or a video file for each into it, with a "
            "subfolder per class if there are labels",
        )
        videos = found.pop("files")
        if any(video.lower().endswith(FILES) for video in videos):
            _import_av()
        return VideoRecords(source=self, videos=videos, **found)


@dataclasses.dataclass(frozen=True)
class VideoRecords:
    """Records of `VideoFolder`: `video` uint8 [T, h, w, c], and a label or none."""

    source: VideoFolder
    path: str
    videos: tuple[str, ...]
    labels: tuple[int, ...] | None
    num_classes: int | None
    label_names: tuple[str, ...] | None

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, i: int) -> dict[str, Any]:
        record = {"video": read_video(self.describe(i), self.source.array_key)}
        return record if self.labels is None else {**record, "label": self.labels[i]}

    def describe(self, i: int) -> str:
        """Returns the path of a record."""
        return os.path.join(self.path, self.videos[i])


def read_video(path: str, array_key: str = "video") -> np.ndarray:
    """Reads a folder of frames, an array or a video file.

    Returns:
      uint8 [T, h, w, c].

    Raises:
      Exception: of several kinds, if it cannot be read, e.g. frames of different sizes.
    """
    if os.path.isdir(path):
        return np.stack([_frame(os.path.join(path, name)) for name in _frames(path)])
    if path.lower().endswith(FILES):
        with _import_av().open(path) as file:
            return np.stack([f.to_ndarray(format="rgb24") for f in file.decode(video=0)])
    video = np.load(path, allow_pickle=False)
    if not isinstance(video, np.ndarray):
        with video:
            video = video[array_key]
    if video.dtype != np.uint8 or video.ndim not in (3, 4):
        raise ValueError(
            f"a video has to be uint8 [T, H, W, C] or [T, H, W], not {video.dtype} {video.shape}"
        )
    return video if video.ndim == 4 else video[..., None]


def _import_av() -> Any:
    try:
        import av
    except ModuleNotFoundError:
        raise UserError(
            "Video files such as .mp4 need PyAV, which is not installed: run "
            "`pip install maskjax[video]`, or store the frames of each video in a folder."
        ) from None
    return av


def _frame(path: str) -> np.ndarray:
    with open(path, "rb") as file:
        return decode_image(file.read())


def _frames(folder: str) -> list[str]:
    """Returns the names of the frames in a folder, sorted."""
    return sorted(
        name
        for name in os.listdir(folder)
        if name.lower().endswith(FRAMES) and not name.startswith(".")
    )


def _videos(root: str) -> list[str]:
    """Returns the paths of all videos under a folder, sorted."""
    found = []
    for folder, subfolders, files in os.walk(root):
        subfolders[:] = [name for name in subfolders if not hidden(name)]
        if folder != root and _frames(folder):
            found.append(folder)
            continue
        found += [
            os.path.join(folder, name)
            for name in files
            if name.lower().endswith((*ARRAYS, *FILES)) and not hidden(name)
        ]
    return sorted(found)

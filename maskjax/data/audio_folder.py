"""Sound files in a folder."""

import dataclasses
import os
import wave
from typing import Any

import numpy as np

from maskjax.data.audio import Recording
from maskjax.data.folder import find_labelled, hidden
from maskjax.errors import UserError

WAVE = (".wav",)
COMPRESSED = (".flac", ".ogg")  # need the extra `audio`


@dataclasses.dataclass(frozen=True)
class AudioFolder:
    """WAV, FLAC and Ogg files under a folder, in the order of their paths.

    Splits: a split is the subfolder of that name; `all` is everything. Within a split, the
    subfolders are the classes, numbered by name over all the splits, and hold their files at any
    depth. A split with files directly in it has no labels. Hidden files and folders are left out.
    WAV files of integers of 8, 16, 24 or 32 bits are read by the standard library; others need
    `soundfile`.

    Attributes:
      path: the folder.
    """

    path: str

    def open(self, split: str) -> "AudioRecords":
        """Opens a split.

        Raises:
          UserError: the folder or split does not exist, holds no sounds, or holds sounds that
            nothing here can decode.
        """
        kinds = ", ".join(WAVE + COMPRESSED)
        classes = "with a subfolder per class if there are labels"
        layout, advice = f"{kinds} files, {classes}", f"{kinds} files into it, {classes}"
        found = find_labelled(self.path, split, _sounds, "sounds", layout, advice)
        if any(file.lower().endswith(COMPRESSED) for file in found["files"]):
            _soundfile()
        return AudioRecords(**found)


@dataclasses.dataclass(frozen=True)
class AudioRecords:
    """Records of `AudioFolder`: `audio`, a `Recording`, and a label or none."""

    path: str
    files: tuple[str, ...]
    labels: tuple[int, ...] | None
    num_classes: int | None
    label_names: tuple[str, ...] | None

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int) -> dict[str, Any]:
        record = {"audio": read_sound(self.describe(i))}
        return record if self.labels is None else {**record, "label": self.labels[i]}

    def describe(self, i: int) -> str:
        """Returns the path of a record."""
        return os.path.join(self.path, self.files[i])


def read_sound(path: str) -> Recording:
    """Reads a sound file as int16; wider samples are rounded.

    Raises:
      UserError: it needs `soundfile`, which is not installed.
      Exception: of several kinds, if it cannot be read.
    """
    if path.lower().endswith(WAVE):
        try:
            return _read_wave(path)
        except wave.Error as error:
            if "unknown format" not in str(error):
                raise
    samples, rate = _soundfile().read(path, dtype="int16", always_2d=True)
    return Recording(samples, rate)


def _read_wave(path: str) -> Recording:
    with wave.open(path, "rb") as file:
        width, channels, rate = file.getsampwidth(), file.getnchannels(), file.getframerate()
        data = np.frombuffer(file.readframes(file.getnframes()), np.uint8)
    return Recording(_as_int16(data, width).reshape(-1, channels), rate)


def _as_int16(data: np.ndarray, width: int) -> np.ndarray:
    """Converts little-endian samples of `width` bytes."""
    if width == 1:  # unsigned
        return (data.astype(np.int16) - 128) * 256
    if width == 2:
        return data.view("<i2").astype(np.int16)
    # The bytes of each sample as the upper ones of 32 bits.
    wide = np.zeros((len(data) // width, 4), np.uint8)
    wide[:, 4 - width :] = data.reshape(-1, width)
    values = np.round(wide.view("<i4")[:, 0] / 65536.0)
    return np.clip(values, -32768, 32767).astype(np.int16)


def _soundfile() -> Any:
    try:
        import soundfile
    except ModuleNotFoundError:
        raise UserError(
            f"{', '.join(COMPRESSED)} files and WAV files of other formats than integers need "
            "soundfile, which is not installed: run `pip install soundfile`, or convert them to "
            "WAV of 16 bits."
        ) from None
    return soundfile


def _sounds(root: str) -> list[str]:
    """Returns the paths of all sound files under a folder, sorted."""
    found = []
    for folder, subfolders, files in os.walk(root):
        subfolders[:] = [name for name in subfolders if not hidden(name)]
        found += [
            os.path.join(folder, name)
            for name in files
            if name.lower().endswith(WAVE + COMPRESSED) and not hidden(name)
        ]
    return sorted(found)

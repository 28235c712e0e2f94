"""Handwritten digits played as sounds: a source of audio that needs no download."""

import dataclasses
from typing import Any

import numpy as np

from maskjax.data.digits import Digits, DigitsRecords

RATE = 8_000
TONES = 400.0 * 2.0 ** (np.arange(8)[::-1] * 0.375)  # Hz, the upper row is the highest
STEP = 256  # samples that a column lasts


@dataclasses.dataclass(frozen=True)
class DigitTones:
    """The images of `data.Digits` as 2,048 samples at 8 kHz: each column a chord of its rows.

    A stand-in for tests and first trials, whose spectrograms look like the digits. It is neither
    speech nor a benchmark.
    """

    def open(self, split: str) -> "DigitTonesRecords":
        """Opens a split: `train` (1442 records), `test` (355) or `all`; errors as `data.Digits`."""
        return DigitTonesRecords(Digits().open(split))


@dataclasses.dataclass(frozen=True)
class DigitTonesRecords:
    """Records of `DigitTones`: `audio` int16 [2048], and the label."""

    digits: DigitsRecords

    num_classes = 10
    label_names = tuple("0123456789")

    def __len__(self) -> int:
        return len(self.digits)

    def __getitem__(self, i: int) -> dict[str, Any]:
        record = self.digits[i]
        levels = record["image"][:, :, 0].astype(np.float64) / 255
        loudness = np.repeat(levels, STEP, axis=1)  # [8, 2048]
        phases = 2 * np.pi * TONES[:, None] * np.arange(loudness.shape[1])[None, :] / RATE
        audio = (loudness * np.sin(phases)).mean(axis=0)
        return {"audio": np.round(audio * 32767).astype(np.int16), "label": record["label"]}

    def describe(self, i: int) -> str:
        """Returns the number and split of a record."""
        return f"{self.digits.describe(i)}, as tones"

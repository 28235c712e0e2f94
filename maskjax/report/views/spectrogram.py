"""Sounds as coloured spectrograms: time to the right, low frequencies at the bottom."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from maskjax.systems import System
from maskjax.tokens.spectrogram import log_mel

# Stops of a map from dark to bright that also orders in grey: red, green, blue in 0..255.
_STOPS = np.array(
    [(0, 0, 4), (66, 10, 104), (147, 38, 103), (221, 81, 58), (252, 165, 10), (252, 255, 164)]
)
_HIDDEN = (128, 128, 128)  # grey, which is no level
_MELS = 64  # bands of a waveform's picture


def colours(levels: np.ndarray) -> np.ndarray:
    """Paints values in [0, 1]: float [...] -> uint8 [..., 3]; linear between `_STOPS`."""
    place = np.clip(levels, 0, 1) * (len(_STOPS) - 1)
    table = [np.interp(place, np.arange(len(_STOPS)), _STOPS[:, c]) for c in range(3)]
    return np.round(np.stack(table, axis=-1)).astype(np.uint8)


def columns(arrays: Mapping[str, np.ndarray], system: System) -> dict[str, np.ndarray]:
    """Draws spectrograms, or waveforms as spectrograms. What is masked is grey.

    Args:
      arrays: {title: float in [0, 1]}: [n, frames, mels, 1] or [n, frames, mels] log-mel energies,
        or [n, T, 1] samples with silence at 0.5.
      system: its input of sounds has the rate.

    Returns:
      {title: uint8 [n, mels, frames, 3]}.
    """
    sounds: list[Any] = [e for e in system.inputs.values() if e.view == "spectrogram"]
    rate = sounds[0].rate
    levels = {title: _energies(array, rate) for title, array in arrays.items()}
    drawn = {title: colours(each) for title, each in levels.items()}
    if "masked" in drawn and not _is_waveform(arrays["masked"]):
        hidden = levels["masked"] != levels["original"]
        drawn["masked"] = np.where(
            hidden[..., None], np.asarray(_HIDDEN, np.uint8), drawn["masked"]
        )
    return drawn


def _is_waveform(array: np.ndarray) -> bool:
    return array.ndim == 3 and array.shape[-1] == 1


def _energies(array: np.ndarray, rate: int) -> np.ndarray:
    """Returns levels in [0, 1], [n, mels, frames], the lowest band in the last row."""
    array = np.asarray(array, np.float32)
    if _is_waveform(array):
        energies = np.asarray(log_mel(jnp.asarray(2 * array[..., 0] - 1), rate, _MELS))
        # From the floor of 16 bits up to full scale, roughly.
        array = np.clip((energies + 14) / 18, 0, 1)
    elif array.ndim == 4:
        array = array[..., 0]
    return array.transpose(0, 2, 1)[:, ::-1]

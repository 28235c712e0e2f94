"""Clips as strips of frames."""

from collections.abc import Mapping

import numpy as np

from maskjax.systems import System

FRAMES = 8  # of a strip at most, evenly spread over the clip
_GAP = 1  # pixels between frames


def columns(arrays: Mapping[str, np.ndarray], system: System) -> dict[str, np.ndarray]:
    """float [n, T, H, W, C] in [0, 1] -> uint8 [n, H, strip, C]: frames from left to right."""
    del system
    return {title: strip(clips) for title, clips in arrays.items()}


def strip(clips: np.ndarray) -> np.ndarray:
    """Lays frames side by side, white between them: float [n, T, H, W, C] -> uint8."""
    t = clips.shape[1]
    chosen = np.unique(np.round(np.linspace(0, t - 1, min(t, FRAMES))).astype(int))
    frames = np.round(clips[:, chosen] * 255).astype(np.uint8)
    frames = np.pad(frames, ((0, 0), (0, 0), (0, 0), (0, _GAP), (0, 0)), constant_values=255)
    n, _, h, _, c = frames.shape
    return np.moveaxis(frames, 1, 2).reshape(n, h, -1, c)[:, :, :-_GAP]

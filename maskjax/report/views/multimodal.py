"""Several modalities side by side, each drawn as its kind asks for."""

import importlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from maskjax.report.views.text import draw_texts

_CELL = 96  # pixels, as in `report.pictures`


def columns(arrays: Mapping[str, np.ndarray], system: Any) -> dict[str, np.ndarray]:
    """Draws every title by the view of its input, on sheets of one size.

    Args:
      arrays: {title: array}; a title begins with the name of its input.
      system: whose inputs they are.

    Returns:
      {title: uint8 [n, H, W, 3]}, in the order given.
    """
    drawn: dict[str, np.ndarray] = {}
    for name in dict.fromkeys(title.split()[0] for title in arrays):
        each = system.input(name)
        own = {title: array for title, array in arrays.items() if title.split()[0] == name}
        if each.view == "text":
            drawn |= draw_texts(own, each)
        else:
            view = importlib.import_module(f"maskjax.report.views.{each.view}")
            drawn |= view.columns(own, system)
    height, width = (max(a.shape[axis] for a in drawn.values()) for axis in (1, 2))
    if any(system.input(title.split()[0]).view == "text" for title in arrays):
        # A sheet enlarges what is smaller than its cells, and words are large enough.
        height = max(height, _CELL)
    return {title: _on_paper(drawn[title], height, width) for title in arrays}


def _on_paper(pictures: np.ndarray, height: int, width: int) -> np.ndarray:
    """Enlarges pictures by a whole factor as far as they fit, on white, colour: [n, H, W, 3]."""
    n, h, w, channels = pictures.shape
    factor = max(1, min(height // h, width // w))
    pictures = pictures[..., [0, 1, 2] if channels >= 3 else [0, 0, 0]]
    pictures = pictures.repeat(factor, axis=1).repeat(factor, axis=2)
    paper = np.full((n, height, width, 3), 255, np.uint8)
    paper[:, : h * factor, : w * factor] = pictures
    return paper

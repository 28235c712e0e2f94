"""How what a system returns becomes pictures: one module for each kind of input.

A module NAME has `columns(arrays, system) -> {title: uint8 [n, H, W, C]}`, the columns of a sheet;
`System.view` names it.
"""

import importlib
from collections.abc import Mapping

import numpy as np

from maskjax.systems import System


def columns(arrays: Mapping[str, np.ndarray], system: System) -> dict[str, np.ndarray]:
    """Returns the columns of a sheet, in the order of `system.titles`.

    Args:
      arrays: what `system.reconstruct` returned.
      system: its `view` says how to draw them.
    """
    view = importlib.import_module(f"{__name__}.{system.view}")
    return view.columns({title: arrays[title] for title in system.titles}, system)

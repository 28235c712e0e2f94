"""Images as they are."""

from collections.abc import Mapping

import numpy as np

from maskjax.systems import System


def columns(arrays: Mapping[str, np.ndarray], system: System) -> dict[str, np.ndarray]:
    """float [n, H, W, C] in [0, 1] -> uint8 of the same shape."""
    del system
    return {title: np.round(images * 255).astype(np.uint8) for title, images in arrays.items()}

"""Point clouds as pictures: from the front and from above, side by side."""

from collections.abc import Mapping

import numpy as np

from maskjax.systems import System

_SIDE = 160  # pixels of each of the two projections
_MARGIN = 8
_NEAR, _FAR = np.array((28, 60, 120.0)), np.array((150, 190, 225.0))
_PAPER = 255
# (horizontal, vertical, depth): x to the right, y up, seen along z; and x to the right, z down,
# seen along y. Small depth is far away.
_PROJECTIONS = ((0, 1, 2), (0, 2, 1))


def columns(arrays: Mapping[str, np.ndarray], system: System) -> dict[str, np.ndarray]:
    """Draws clouds of any number of points.

    All columns of an example have the frame of its first, so that they can be compared; what lies
    outside is left out.

    Args:
      arrays: {title: float [n, P, 3]}; P may differ between titles.
      system: not used.

    Returns:
      {title: uint8 [n, 160, 320, 3]}; nearer points are darker.
    """
    del system
    first = next(iter(arrays.values()))
    frames = [_frame(cloud) for cloud in first]
    return {
        title: np.stack([_draw(cloud, *frame) for cloud, frame in zip(clouds, frames, strict=True)])
        for title, clouds in arrays.items()
    }


def _frame(cloud: np.ndarray) -> tuple[np.ndarray, float]:
    """Returns the middle [3] and half the extent of a cloud, the same along all axes."""
    low, high = cloud.min(axis=0), cloud.max(axis=0)
    return (low + high) / 2, max(float((high - low).max()) / 2, 1e-9)


def _draw(cloud: np.ndarray, middle: np.ndarray, extent: float) -> np.ndarray:
    """[P, 3] -> uint8 [side, 2 side, 3]."""
    place = (np.asarray(cloud, np.float64) - middle[None, :]) / extent  # within [-1, 1]
    place = place[np.isfinite(place).all(axis=1)]
    return np.concatenate([_project(place, *axes) for axes in _PROJECTIONS], axis=1)


def _project(place: np.ndarray, horizontal: int, vertical: int, depth: int) -> np.ndarray:
    picture = np.full((_SIDE, _SIDE, 3), _PAPER, np.uint8)
    place = place[np.argsort(place[:, depth], kind="stable")]  # near points cover far ones
    scale = _SIDE / 2 - _MARGIN
    right = np.round(_SIDE / 2 + scale * place[:, horizontal]).astype(int)
    sign = -1 if vertical == 1 else 1
    down = np.round(_SIDE / 2 + sign * scale * place[:, vertical]).astype(int)
    near = np.clip((place[:, depth : depth + 1] + 1) / 2, 0, 1)
    colour = np.round(_FAR + near * (_NEAR - _FAR)).astype(np.uint8)
    inside = (right >= 1) & (right < _SIDE - 1) & (down >= 1) & (down < _SIDE - 1)
    for row in (-1, 0):
        for column in (-1, 0):
            picture[down[inside] + row, right[inside] + column] = colour[inside]
    return picture

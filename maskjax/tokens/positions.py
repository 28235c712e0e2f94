"""Position tables, computed in float64 by numpy: they are constants of a program."""

import functools

import numpy as np

from maskjax.errors import UserError


def sincos_1d(positions: np.ndarray, width: int) -> np.ndarray:
    """Sine-cosine embedding of scalar positions (Vaswani et al., 2017, in MAE's arrangement).

    Args:
      positions: any shape, flattened to [N].
      width: even.

    Returns:
      float64 [N, width]: sin(p w_k) for k = 0..width/2-1, then cos; w_k = 10000^(-2k/width).
    """
    frequencies = 10000.0 ** (-np.arange(width // 2, dtype=np.float64) / (width / 2))
    angles = np.asarray(positions, np.float64).reshape(-1, 1) * frequencies[None, :]
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)


@functools.cache
def sincos_2d(shape: tuple[int, int], width: int) -> np.ndarray:
    """Two-dimensional table of MAE; the FIRST half of the channels encodes the COLUMN.

    Args:
      shape: (rows, columns) of the token grid.
      width: divisible by 4.

    Returns:
      float32 [rows * columns, width], tokens in raster order.

    Raises:
      UserError: the width is not divisible by 4.
    """
    if width % 4:
        raise UserError(f"A 2-D sine-cosine table needs a width divisible by 4, not {width}.")
    rows, columns = np.meshgrid(np.arange(shape[0]), np.arange(shape[1]), indexing="ij")
    halves = [sincos_1d(columns, width // 2), sincos_1d(rows, width // 2)]
    return np.concatenate(halves, axis=1).astype(np.float32)


def resize_table(table: np.ndarray, old: tuple[int, int], new: tuple[int, int]) -> np.ndarray:
    """Resizes a position table to another grid by PyTorch's bicubic interpolation.

    The cubic kernel has a = -0.75, no antialiasing, samples outside the table repeat its border and
    pixel centres are aligned by halves (`align_corners=False`): what published weights were
    evaluated with. `jax.image.resize` has another kernel (a = -0.5).

    Args:
      table: [rows * columns, D] in raster order, grid `old`.
      old: (rows, columns) of the table.
      new: (rows, columns) wanted.

    Returns:
      float32 [new rows * new columns, D].
    """
    if tuple(old) == tuple(new):
        return np.asarray(table, np.float32)
    grid = np.asarray(table, np.float64).reshape(*old, -1)
    weights = [_cubic_matrix(o, n) for o, n in zip(old, new, strict=True)]
    resized = np.einsum("yr,xc,rcd->yxd", *weights, grid)
    return resized.reshape(new[0] * new[1], -1).astype(np.float32)


def _cubic_matrix(old: int, new: int, a: float = -0.75) -> np.ndarray:
    """[new, old] weights of one-dimensional cubic interpolation (Keys, 1981) with border repeat."""
    centres = (np.arange(new) + 0.5) * old / new - 0.5
    first = np.floor(centres).astype(int)
    matrix = np.zeros((new, old))
    for tap in range(-1, 3):
        x = np.abs(centres - (first + tap))
        near = (a + 2) * x**3 - (a + 3) * x**2 + 1
        far = a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
        index = np.clip(first + tap, 0, old - 1)
        np.add.at(matrix, (np.arange(new), index), np.where(x <= 1, near, far))
    return matrix

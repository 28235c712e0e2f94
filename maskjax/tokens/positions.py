"""Position tables; fixed ones are computed in float64 by numpy: they are constants of a program."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
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


@functools.cache
def sincos_3d(shape: tuple[int, int, int], width: int) -> np.ndarray:
    """Three-dimensional table of V-JEPA (Bardes et al., 2024): a third of the channels per axis.

    Args:
      shape: (time steps, rows, columns) of the token grid.
      width: even. Each axis has 2 ceil(width / 6) channels, in the order time, row, column; what
        exceeds the width is cut off the last.

    Returns:
      float32 [N, width], tokens in raster order, time slowest.
    """
    places = np.meshgrid(*map(np.arange, shape), indexing="ij")
    thirds = [sincos_1d(place, 2 * -(-width // 6)) for place in places]
    return np.concatenate(thirds, axis=1)[:, :width].astype(np.float32)


def sincos(shape: tuple[int, ...], width: int) -> np.ndarray:
    """Sine-cosine table of a grid of one, two or three axes: float32 [N, width].

    Raises:
      UserError: the grid has more axes, or the width does not suit it.
    """
    if len(shape) == 1:
        if width % 2:
            raise UserError(f"A sine-cosine table needs an even width, not {width}.")
        return sincos_1d(np.arange(shape[0]), width).astype(np.float32)
    tables = {2: sincos_2d, 3: sincos_3d}
    if len(shape) not in tables:
        raise UserError(f"There is no sine-cosine table for tokens along {len(shape)} axes.")
    return tables[len(shape)](tuple(shape), width)


@functools.cache
def sinusoid_flat(num_tokens: int, width: int) -> np.ndarray:
    """Table of VideoMAE (Tong et al., 2022) over the flat index, sine and cosine INTERLEAVED.

    Channel j of token p is sin(p / 10000^(2 floor(j / 2) / width)) for even j, cos for odd j, as
    in Vaswani et al. (2017). It knows no geometry: space and time are one index.

    Returns:
      float32 [num_tokens, width].
    """
    channels = np.arange(width)
    angles = np.arange(num_tokens)[:, None] / 10000.0 ** (2 * (channels // 2) / width)[None, :]
    return np.where(channels[None, :] % 2, np.cos(angles), np.sin(angles)).astype(np.float32)


@functools.cache
def relative_index(shape: tuple[int, int], class_token: bool) -> np.ndarray:
    """Which entry of a table of relative positions each pair of tokens reads (BEiT).

    Entry (r + rows - 1) (2 columns - 1) + c + columns - 1 is for a query r rows below and c columns
    right of the key. With a class token there are three more, in this order: class token to patch,
    patch to class token, class token to itself.

    Args:
      shape: (rows, columns) of the token grid.
      class_token: whether a class token comes first.

    Returns:
      int32 [N, N] or [1 + N, 1 + N]: query, key.
    """
    rows, columns = (axis.reshape(-1) for axis in np.indices(shape))
    below = rows[:, None] - rows[None, :] + shape[0] - 1
    right = columns[:, None] - columns[None, :] + shape[1] - 1
    index = (below * (2 * shape[1] - 1) + right).astype(np.int32)
    if not class_token:
        return index
    offsets = relative_entries(shape, False)
    index = np.pad(index, ((1, 0), (1, 0)))
    index[0, :], index[:, 0], index[0, 0] = offsets, offsets + 1, offsets + 2
    return index


def relative_entries(shape: tuple[int, ...], class_token: bool) -> int:
    """Returns the number of entries of the table that `relative_index` points to."""
    return math.prod(2 * extent - 1 for extent in shape) + 3 * class_token


def resize_table(
    table: np.ndarray | jax.Array, old: tuple[int, ...], new: tuple[int, ...]
) -> np.ndarray | jax.Array:
    """Resizes a position table to another grid by PyTorch's bicubic interpolation.

    The cubic kernel has a = -0.75, no antialiasing, samples outside the table repeat its border and
    pixel centres are aligned by halves (`align_corners=False`): what published weights were
    evaluated with. `jax.image.resize` has another kernel (a = -0.5).

    Args:
      table: [N, D] in raster order, grid `old`; learned ones are JAX arrays and stay such.
      old: extents of the table's grid, e.g. (rows, columns).
      new: extents wanted, along as many axes.

    Returns:
      float32 [new N, D].

    Raises:
      UserError: the table is not one of this grid, or the other grid has other axes.
    """
    if len(old) != len(new) or len(table) != math.prod(old) or min(*old, *new) < 1:
        raise UserError(
            f"A table of {len(table)} positions cannot be resized from a grid of "
            f"{'x'.join(map(str, old))} tokens to {'x'.join(map(str, new))}: both grids need the "
            "same axes, and the first as many tokens as the table."
        )
    xp, exact = (jnp, jnp.float32) if isinstance(table, jax.Array) else (np, np.float64)
    if tuple(old) == tuple(new):
        return xp.asarray(table, xp.float32)
    grid = xp.asarray(table, exact).reshape(*old, -1)
    for axis, (o, n) in enumerate(zip(old, new, strict=True)):
        matrix = _cubic_matrix(o, n).astype(exact)
        product: Any = xp.tensordot(matrix, grid, axes=(1, axis))
        grid = xp.moveaxis(product, 0, axis)
    return grid.reshape(-1, grid.shape[-1]).astype(xp.float32)


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

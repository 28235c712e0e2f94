"""Cutting arrays into patches and putting them together again."""

import jax

from maskjax.tokens.grid import TokenGrid


def patchify(x: jax.Array, grid: TokenGrid) -> jax.Array:
    """Cuts a modality into flat patches.

    Args:
      x: [B, *grid.size, C], any number of axes.
      grid: the geometry.

    Returns:
      [B, N, P], tokens in raster order, the values of a token in the order (axis 0 in patch, axis 1
      in patch, ..., channel), i.e. channel fastest, as the MAE reference has it.
    """
    d, b = len(grid.shape), x.shape[0]
    split = [n for pair in zip(grid.shape, grid.patch, strict=True) for n in pair]
    x = x.reshape(b, *split, grid.channels)
    order = (0, *range(1, 2 * d, 2), *range(2, 2 * d + 1, 2), 2 * d + 1)
    return x.transpose(order).reshape(b, grid.num_tokens, grid.values_per_token)


def unpatchify(patches: jax.Array, grid: TokenGrid) -> jax.Array:
    """Inverts `patchify`: [B, N, P] -> [B, *grid.size, C]."""
    d, b = len(grid.shape), patches.shape[0]
    x = patches.reshape(b, *grid.shape, *grid.patch, grid.channels)
    order = (0, *[axis for i in range(d) for axis in (1 + i, 1 + d + i)], 2 * d + 1)
    return x.transpose(order).reshape(b, *grid.size, grid.channels)

"""From modalities to tokens: grids, patches, position tables, selection. Plain jnp functions."""

from maskjax.tokens.grid import TokenGrid
from maskjax.tokens.patches import patchify, unpatchify
from maskjax.tokens.positions import (
    relative_entries,
    relative_index,
    resize_table,
    sincos,
    sincos_1d,
    sincos_2d,
    sincos_3d,
    sinusoid_flat,
)
from maskjax.tokens.select import restore_order, take_tokens

__all__ = [
    "TokenGrid",
    "patchify",
    "relative_entries",
    "relative_index",
    "resize_table",
    "restore_order",
    "sincos",
    "sincos_1d",
    "sincos_2d",
    "sincos_3d",
    "sinusoid_flat",
    "take_tokens",
    "unpatchify",
]

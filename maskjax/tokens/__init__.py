"""From modalities to tokens: grids, patches, position tables, selection. Plain jnp functions."""

from maskjax.tokens.grid import TokenGrid
from maskjax.tokens.patches import patchify, unpatchify
from maskjax.tokens.positions import resize_table, sincos_1d, sincos_2d
from maskjax.tokens.select import restore_order, take_tokens

__all__ = [
    "TokenGrid",
    "patchify",
    "resize_table",
    "restore_order",
    "sincos_1d",
    "sincos_2d",
    "take_tokens",
    "unpatchify",
]

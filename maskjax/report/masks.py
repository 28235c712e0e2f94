"""Pictures of masks: one pixel for each token, whatever the sampler."""

import math
from typing import Any

import jax
import numpy as np
from PIL import Image

from maskjax.errors import UserError
from maskjax.masking import AttentionMask, BlockMasks, MultiBlock, Sampler, ScheduledRatio
from maskjax.report.pictures import reconstruction_sheet
from maskjax.tokens import TokenGrid

_VISIBLE, _HIDDEN, _PAPER = (222, 226, 232), (52, 56, 66), (255, 255, 255)
# Of target blocks; where blocks overlap, the later one is seen.
_TARGETS = ((222, 111, 62), (66, 135, 190), (98, 160, 84), (160, 104, 172))
_STRIP = 8  # a row of tokens is drawn as one that is so many times longer than high


def mask_pictures(mask: Any, grid: TokenGrid) -> np.ndarray:
    """Draws masks: visible tokens light, hidden ones dark.

    Two axes are a picture, of three the first is time and its steps stand side by side, one axis is
    a strip. Of a `BlockMasks` the context is light, each target has a colour, and what nobody sees
    is dark; of an `AttentionMask` row i shows what row i of attention may see.

    Args:
      mask: what a sampler of `maskjax.masking` returned, or anything with `is_masked`, bool [B, N].
        Of a `BudgetMask` the modalities are drawn one by one: `mask.modalities[name]`.
      grid: geometry of its tokens.

    Returns:
      uint8 [B, H, W, 3].

    Raises:
      UserError: a mask of another kind, or of another number of tokens than the grid has.
    """
    if isinstance(mask, AttentionMask):
        return _colours(~np.asarray(mask.attend))
    if isinstance(mask, BlockMasks):
        pixels = _block_colours(mask, grid.num_tokens)
    elif hasattr(mask, "is_masked"):
        pixels = _colours(np.asarray(mask.is_masked))
    else:
        raise UserError(
            f"A {type(mask).__name__} has no is_masked: give a mask of one modality, e.g. "
            "mask.modalities['image']."
        )
    if pixels.shape[1] != grid.num_tokens:
        raise UserError(
            f"The mask has {pixels.shape[1]} tokens and the grid {grid.num_tokens}: give the grid "
            "that the mask was drawn on."
        )
    return _laid_out(pixels, grid)


def draw_masks(
    sampler: Sampler | MultiBlock | ScheduledRatio,
    grid: TokenGrid,
    examples: int = 4,
    seed: int = 0,
    **arguments: Any,
) -> Image.Image:
    """Draws masks with a sampler, and a picture of them.

    Args:
      sampler: of `maskjax.masking`, for one grid.
      grid: geometry of the tokens.
      examples: number of masks.
      seed: of the draws.
      **arguments: what the sampler takes besides: `scores`, `progress`, `places`.

    Returns:
      An RGB image, one row for each mask.

    Raises:
      UserError: the sampler cannot draw on this grid.
    """
    sampler.check(grid)
    mask = sampler(jax.random.key(seed), examples, grid, **arguments)
    return reconstruction_sheet({type(sampler).__name__: mask_pictures(mask, grid)})


def _colours(hidden: np.ndarray) -> np.ndarray:
    """bool [...] -> uint8 [..., 3]."""
    return np.asarray([_VISIBLE, _HIDDEN], np.uint8)[hidden.astype(int)]


def _block_colours(mask: BlockMasks, num_tokens: int) -> np.ndarray:
    """Returns uint8 [B, N, 3]."""
    context, targets = np.asarray(mask.context), np.asarray(mask.targets)
    shown, meant = np.asarray(mask.context_weight) > 0, np.asarray(mask.target_weight) > 0
    pixels = np.broadcast_to(np.asarray(_HIDDEN, np.uint8), (len(context), num_tokens, 3)).copy()
    for row in range(len(context)):
        pixels[row, context[row][shown[row]]] = _VISIBLE
        for block, (tokens, real) in enumerate(zip(targets[row], meant[row], strict=True)):
            pixels[row, tokens[real]] = _TARGETS[block % len(_TARGETS)]
    return pixels


def _laid_out(pixels: np.ndarray, grid: TokenGrid) -> np.ndarray:
    """uint8 [B, N, 3] -> uint8 [B, H, W, 3]."""
    shape = grid.shape
    if len(shape) == 1:
        return np.repeat(pixels[:, None], math.ceil(shape[0] / _STRIP), axis=1)
    maps = pixels.reshape(len(pixels), -1, *shape[-2:], 3)
    if maps.shape[1] == 1:
        return maps[:, 0]
    framed = np.pad(
        maps, ((0, 0), (0, 0), (0, 0), (0, 1), (0, 0)), constant_values=_PAPER[0]
    )  # a gap between the steps of time
    return np.concatenate(list(framed.swapaxes(0, 1)), axis=2)[:, :, :-1]

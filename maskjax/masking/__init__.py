"""Masks and the samplers that draw them. A mask is data: it can be tested, drawn and replayed."""

from maskjax.masking.ball import Ball
from maskjax.masking.block import Block
from maskjax.masking.budget import BudgetMask, DirichletBudget, Hidden, budget_mask
from maskjax.masking.coarse import Coarse
from maskjax.masking.coloured import Coloured
from maskjax.masking.fixed import Fixed, hidden_tokens
from maskjax.masking.guided import Guided
from maskjax.masking.mask import (
    Mask,
    mask_from_hidden,
    mask_from_indices,
    mask_from_scores,
    nothing_masked,
)
from maskjax.masking.multiblock import BlockMasks, Kept, MultiBlock
from maskjax.masking.ratio_schedules import mask_ratio, truncated_normal_ratio
from maskjax.masking.running_cell import RunningCell
from maskjax.masking.sampler import Sampler
from maskjax.masking.scheduled import ScheduledRatio, variable_mask
from maskjax.masking.separate import Separate, join_masks
from maskjax.masking.span import Spans
from maskjax.masking.time_frequency import TimeFrequency
from maskjax.masking.tube import Tube
from maskjax.masking.uniform import Uniform, num_kept
from maskjax.masking.words import AttentionMask, EnhancedDecoding, WholeWords, WordMask, find_words

__all__ = [
    "AttentionMask",
    "Ball",
    "Block",
    "BlockMasks",
    "BudgetMask",
    "Coarse",
    "Coloured",
    "DirichletBudget",
    "EnhancedDecoding",
    "Fixed",
    "Guided",
    "Hidden",
    "Kept",
    "Mask",
    "MultiBlock",
    "RunningCell",
    "Sampler",
    "ScheduledRatio",
    "Separate",
    "Spans",
    "TimeFrequency",
    "Tube",
    "Uniform",
    "WholeWords",
    "WordMask",
    "budget_mask",
    "find_words",
    "hidden_tokens",
    "join_masks",
    "mask_from_hidden",
    "mask_from_indices",
    "mask_from_scores",
    "mask_ratio",
    "nothing_masked",
    "num_kept",
    "truncated_normal_ratio",
    "variable_mask",
]

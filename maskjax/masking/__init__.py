"""Masks and the samplers that draw them. A mask is data: it can be tested, drawn and replayed."""

from maskjax.masking.mask import Mask, mask_from_indices, mask_from_scores
from maskjax.masking.sampler import Sampler
from maskjax.masking.uniform import Uniform, num_kept

__all__ = ["Mask", "Sampler", "Uniform", "mask_from_indices", "mask_from_scores", "num_kept"]

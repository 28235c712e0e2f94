"""From a system and a configuration to trained variables."""

from maskjax.training.lamb import LAMB
from maskjax.training.optimizers import AdamW
from maskjax.training.schedules import Warmup, WarmupCosine, WarmupLinear, WarmupSteps

__all__ = ["LAMB", "AdamW", "Warmup", "WarmupCosine", "WarmupLinear", "WarmupSteps"]

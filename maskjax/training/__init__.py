"""From a system and a configuration to trained variables."""

from maskjax.training.lamb import LAMB
from maskjax.training.optimizers import AdamW
from maskjax.training.schedules import WarmupCosine, WarmupSteps

__all__ = ["LAMB", "AdamW", "WarmupCosine", "WarmupSteps"]

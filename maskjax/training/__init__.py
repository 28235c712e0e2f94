"""From a system and a configuration to trained variables."""

from maskjax.training.optimizers import AdamW
from maskjax.training.schedules import WarmupCosine

__all__ = ["AdamW", "WarmupCosine"]

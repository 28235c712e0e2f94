"""From a system and a configuration to trained variables."""

from maskjax.training.lamb import LAMB
from maskjax.training.lars import LARS
from maskjax.training.layer_decay import LayerwiseAdamW
from maskjax.training.optimizers import AdamW
from maskjax.training.schedules import Warmup, WarmupCosine, WarmupLinear, WarmupSteps

__all__ = [
    "LAMB",
    "LARS",
    "AdamW",
    "LayerwiseAdamW",
    "Warmup",
    "WarmupCosine",
    "WarmupLinear",
    "WarmupSteps",
]

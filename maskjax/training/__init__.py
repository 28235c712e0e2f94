"""From a system and a configuration to trained variables."""

from maskjax.training.lamb import LAMB
from maskjax.training.lars import LARS
from maskjax.training.layer_decay import LayerwiseAdamW
from maskjax.training.optimizers import AdamW
from maskjax.training.schedules import Warmup, WarmupCosine, WarmupLinear, WarmupSteps
from maskjax.training.sgd import SGD

__all__ = [
    "LAMB",
    "LARS",
    "SGD",
    "AdamW",
    "LayerwiseAdamW",
    "Warmup",
    "WarmupCosine",
    "WarmupLinear",
    "WarmupSteps",
]

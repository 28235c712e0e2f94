"""maskjax: masked autoencoders and their kin, in JAX, from two CPU cores to a TPU pod."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from maskjax.config_file import load_config
    from maskjax.loading import Loaded, load
    from maskjax.pretraining import pretrain

__all__ = ["Loaded", "__version__", "load", "load_config", "pretrain"]
__version__ = "0.1.0"

# They pull in models and checkpoints: imported when they are first asked for.
_LAZY = {
    "Loaded": "loading",
    "load": "loading",
    "load_config": "config_file",
    "pretrain": "pretraining",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(f"maskjax.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'maskjax' has no attribute '{name}'")

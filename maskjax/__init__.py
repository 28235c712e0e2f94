"""maskjax: masked autoencoders and their kin, in JAX, from two CPU cores to a TPU pod."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from maskjax.loading import Loaded, load

__all__ = ["Loaded", "__version__", "load"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # `maskjax.load` pulls in models and checkpoints: imported when it is first asked for.
    if name in ("Loaded", "load"):
        from maskjax import loading

        return getattr(loading, name)
    raise AttributeError(f"module 'maskjax' has no attribute '{name}'")

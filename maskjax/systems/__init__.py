"""Systems: a published method, put together from parts."""

from maskjax.config import ConfigDict, build
from maskjax.data import ImageSpec
from maskjax.systems.masked_autoencoder import MaskedAutoencoder
from maskjax.systems.system import System

__all__ = ["MaskedAutoencoder", "System", "build_system"]


def build_system(config: ConfigDict) -> System:
    """Builds the system of a configuration for its data, and checks that the two fit.

    Raises:
      UserError: for example a size that the patch does not divide, or a mask that leaves nothing.
    """
    spec = ImageSpec(
        size=tuple(config.data.image_size),
        channels=config.data.channels,
        mean=tuple(config.data.mean),
        std=tuple(config.data.std),
    )
    system = build(config.system, spec=spec)
    system.check()
    return system

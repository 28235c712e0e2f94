"""What is predicted, computed from the batch; never differentiated through."""

from maskjax.targets.pixels import NormalisedPixels, Pixels

__all__ = ["NormalisedPixels", "Pixels"]

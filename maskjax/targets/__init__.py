"""What is predicted, computed from the batch; never differentiated through."""

from maskjax.targets.categories import Categories
from maskjax.targets.codes import Codes, KMeansCodes, RandomCodes
from maskjax.targets.features import Features
from maskjax.targets.pixels import NormalisedPixels, Pixels
from maskjax.targets.target import Target
from maskjax.targets.video import NormalisedChannels

__all__ = [
    "Categories",
    "Codes",
    "Features",
    "KMeansCodes",
    "NormalisedChannels",
    "NormalisedPixels",
    "Pixels",
    "RandomCodes",
    "Target",
]

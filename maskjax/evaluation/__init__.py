"""What a frozen representation is worth: kNN and linear probes on features named by path."""

from maskjax.evaluation.features import Features, extract, pixel_features, selector
from maskjax.evaluation.knn import KNN
from maskjax.evaluation.linear import LinearProbe
from maskjax.evaluation.run import Evaluation

__all__ = [
    "KNN",
    "Evaluation",
    "Features",
    "LinearProbe",
    "extract",
    "pixel_features",
    "selector",
]

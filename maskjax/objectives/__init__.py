"""Terms of the objective: each reads outputs by path and returns a sum and a count."""

from maskjax.objectives.bag_of_words import BagOfWords, bag_of_words
from maskjax.objectives.chamfer import Chamfer
from maskjax.objectives.classification import MaskedCrossEntropy, cross_entropy
from maskjax.objectives.codes import CodePerplexity
from maskjax.objectives.diffusion import NoiseSchedule
from maskjax.objectives.distillation import FeatureRegression
from maskjax.objectives.label_sets import BinaryCrossEntropy
from maskjax.objectives.labels import LabelCrossEntropy
from maskjax.objectives.monitors import FeatureSpread
from maskjax.objectives.multimodal import CrossEntropyPerExample, RegressionPerExample
from maskjax.objectives.penalty import MeanSquare
from maskjax.objectives.ranking import ErrorPrediction
from maskjax.objectives.regression import MaskedRegression
from maskjax.objectives.term import Term, TermValue
from maskjax.objectives.weighted import WeightedRegression

__all__ = [
    "BagOfWords",
    "BinaryCrossEntropy",
    "Chamfer",
    "CodePerplexity",
    "CrossEntropyPerExample",
    "ErrorPrediction",
    "FeatureRegression",
    "FeatureSpread",
    "LabelCrossEntropy",
    "MaskedCrossEntropy",
    "MaskedRegression",
    "MeanSquare",
    "NoiseSchedule",
    "RegressionPerExample",
    "Term",
    "TermValue",
    "WeightedRegression",
    "bag_of_words",
    "cross_entropy",
]

"""What outputs named by path are worth: probes of frozen features, accuracy of logits."""

from maskjax.evaluation.accuracy import Accuracy
from maskjax.evaluation.attentive import AttentiveProbe
from maskjax.evaluation.documents import DocumentRetrieval
from maskjax.evaluation.features import Evaluator, Features, extract, raw_features, selector
from maskjax.evaluation.few_shot import FewLabels, FewShot
from maskjax.evaluation.knn import KNN
from maskjax.evaluation.label_sets import LabelSetProbe, MeanAveragePrecision
from maskjax.evaluation.linear import LinearProbe
from maskjax.evaluation.of_run import evaluate, features_of
from maskjax.evaluation.retrieval import Retrieval
from maskjax.evaluation.run import Evaluation
from maskjax.evaluation.segmentation import KNNSegmentation, LinearSegmentation
from maskjax.evaluation.similarity import Similarity
from maskjax.evaluation.spread import Spread
from maskjax.evaluation.svm import LinearSVM

__all__ = [
    "KNN",
    "Accuracy",
    "AttentiveProbe",
    "DocumentRetrieval",
    "Evaluation",
    "Evaluator",
    "Features",
    "FewLabels",
    "FewShot",
    "KNNSegmentation",
    "LabelSetProbe",
    "LinearProbe",
    "LinearSVM",
    "LinearSegmentation",
    "MeanAveragePrecision",
    "Retrieval",
    "Similarity",
    "Spread",
    "evaluate",
    "extract",
    "features_of",
    "raw_features",
    "selector",
]

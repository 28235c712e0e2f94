"""Mean average precision, and the probe of several classes."""

import numpy as np
import pytest

from maskjax.errors import UserError
from maskjax.evaluation import Features, LabelSetProbe, MeanAveragePrecision
from maskjax.evaluation.label_sets import mean_average_precision


def area(truth, scores):
    """Average precision by its definition: the mean, over right ones, of the precision there."""
    order = np.argsort(-scores)
    hits = np.cumsum(truth[order])
    precision = hits / np.arange(1, len(truth) + 1)
    return precision[truth[order]].mean()


def split(values, labels, path="encoder.mean"):
    return {
        path: Features(values.astype(np.float32), None),
        "batch.labels": Features(labels.astype(np.float32), None),
    }


def test_mean_average_precision_is_that_of_its_definition():
    rng = np.random.default_rng(0)
    truth, scores = rng.random((40, 5)) < 0.3, rng.normal(size=(40, 5))
    truth[:, 3] = False  # nobody is of this class
    wanted = np.mean([area(truth[:, c], scores[:, c]) for c in (0, 1, 2, 4)])
    test = split(scores, truth, "head.logits")
    found = MeanAveragePrecision()({}, test)
    assert found == pytest.approx({"map": wanted, "classes": 4.0}, abs=1e-9)
    assert mean_average_precision(truth, truth.astype(float))["map"] == 1.0
    # Scores that tell nothing are worth as much as the class is frequent.
    shares = truth.mean(axis=0)
    constant = mean_average_precision(truth, np.zeros(truth.shape))["map"]
    assert constant == pytest.approx(shares[shares > 0].mean())


@pytest.mark.parametrize(
    ("scores", "labels", "words"),
    [
        (np.zeros((3, 2)), np.zeros((3, 2)), "of any class"),
        (np.zeros((3, 2)), np.ones((3, 4)), "tells 2 classes and 'batch.labels' has 4"),
        (np.full((3, 2), np.nan), np.ones((3, 2)), "NaN or infinity"),
    ],
)
def test_what_cannot_be_judged(scores, labels, words):
    with pytest.raises(UserError, match=words):
        MeanAveragePrecision()({}, split(scores, labels, "head.logits"))


def linear_data(n=600, width=6, noise=0.1):
    """Classes are half-spaces that overlap, so that most examples are of several or none."""
    rng = np.random.default_rng(1)
    values = rng.normal(size=(n, width)) * np.array([1, 10, 0.1, 1, 1, 1]) + 3.0
    directions = rng.normal(size=(width, 4)) / np.array([1, 10, 0.1, 1, 1, 1])[:, None]
    labels = (values - 3.0) @ directions + noise * rng.normal(size=(n, 4)) > 0.5
    return values, np.concatenate([labels, np.zeros((n, 1), bool), np.ones((n, 1), bool)], axis=1)


def test_the_probe_finds_classes_that_are_linear():
    values, labels = linear_data()
    cut = 400
    train, test = split(values[:cut], labels[:cut]), split(values[cut:], labels[cut:])
    found = LabelSetProbe()(train, test)
    assert found["map"] > 0.97
    assert found["classes"] == 5.0  # those that the test examples have
    assert found["regularisation"] in LabelSetProbe.regularisations
    rng = np.random.default_rng(2)
    nothing = split(rng.normal(size=(cut, 6)), labels[:cut]), test
    assert LabelSetProbe(regularisations=(1.0,), validation_share=0.0)(*nothing)["map"] < 0.6


def test_the_regularisation_is_chosen_by_validation():
    """With more features than examples, noise is fitted unless it is penalised."""
    rng = np.random.default_rng(3)
    values, labels = linear_data(200, noise=3.0)
    values = np.concatenate([values, rng.normal(size=(200, 100))], axis=1)
    pair = split(values[:80], labels[:80]), split(values[80:], labels[80:])
    chosen = LabelSetProbe(regularisations=(1e-6, 1.0))(*pair)
    weak = LabelSetProbe(regularisations=(1e-6,), validation_share=0.0)(*pair)
    assert chosen["regularisation"] == 1.0
    assert chosen["map"] > weak["map"]


def test_a_probe_needs_classes_and_regularisations():
    values, labels = linear_data(20)
    empty = split(values, np.zeros_like(labels))
    with pytest.raises(UserError, match="No training example"):
        LabelSetProbe()(empty, split(values, labels))
    with pytest.raises(UserError, match="regularisations above 0"):
        LabelSetProbe(regularisations=())
    with pytest.raises(UserError, match="validation_share above 0"):
        LabelSetProbe(validation_share=0.0)

"""The linear SVM: what it separates, how it chooses, what it refuses."""

import numpy as np
import pytest

from maskjax.errors import UserError
from maskjax.evaluation.features import Features
from maskjax.evaluation.svm import LinearSVM


def blobs(seed, noise, n=90):
    rng = np.random.default_rng(seed)
    labels = (np.arange(n) % 3).astype(np.int32)
    centres = np.eye(3, 5)[labels] * 4
    return Features((centres + rng.normal(size=(n, 5)) * noise).astype(np.float32), labels)


def test_separable_classes():
    svm = LinearSVM()
    assert svm.paths == ("encoder.mean",)
    train, test = blobs(0, 0.3), blobs(1, 0.3)
    # The scale of a feature has no influence.
    scale = np.float32([1, 1000, 1e-3, 1, 1])
    for factor in (np.float32(1), scale):
        result = svm(
            {"encoder.mean": Features(train.values * factor, train.labels)},
            {"encoder.mean": Features(test.values * factor, test.labels)},
        )
        assert result["accuracy"] == 1.0


def test_noise_is_at_chance():
    rng = np.random.default_rng(0)
    labels = (np.arange(300) % 3).astype(np.int32)
    train, test = (Features(rng.normal(size=(300, 5)).astype(np.float32), labels) for _ in range(2))
    assert LinearSVM().score(train, test)["accuracy"] < 0.45


def test_the_cost_is_chosen_on_training_examples_and_repeatable():
    train, test = blobs(0, 3.0), blobs(1, 3.0)
    first = LinearSVM().score(train, test)
    assert first == LinearSVM().score(train, test)
    # Labels of the test examples have no influence on the choice.
    other = LinearSVM().score(train, Features(test.values, test.labels[::-1].copy()))
    assert other["cost"] == first["cost"]


def test_refusals():
    with pytest.raises(UserError, match="costs above 0"):
        LinearSVM(costs=())
    with pytest.raises(UserError, match="among several costs"):
        LinearSVM(validation_share=0)
    one = Features(np.zeros((4, 2), np.float32), np.zeros(4, np.int32))
    with pytest.raises(UserError, match="two classes"):
        LinearSVM().score(one, one)
    single = Features(np.eye(3, dtype=np.float32), np.arange(3, dtype=np.int32))
    with pytest.raises(UserError, match="single training example"):
        LinearSVM().score(single, single)
    assert LinearSVM(costs=(1.0,), validation_share=0).score(single, single)["accuracy"] == 1.0

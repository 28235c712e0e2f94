"""The attentive probe: what it finds among tokens, how it chooses, what it refuses."""

import numpy as np
import pytest

from maskjax.errors import UserError
from maskjax.evaluation.attentive import AttentiveProbe
from maskjax.evaluation.features import Features
from maskjax.evaluation.linear import LinearProbe

QUICK = dict(learning_rates=(1e-2,), validation_share=0.0, epochs=15, batch_size=32)


def hidden(seed, n=256, classes=3):
    """One of eight tokens is marked, and tells the class; the others tell a random one."""
    rng = np.random.default_rng(seed)
    labels = (np.arange(n) % classes).astype(np.int32)
    said = rng.integers(0, classes, (n, 8))
    marked = rng.integers(0, 8, n)
    said[np.arange(n), marked] = labels
    tokens = np.concatenate([4 * np.eye(classes)[said], np.zeros((n, 8, 5))], axis=-1)
    tokens[np.arange(n), marked, classes] = 8
    tokens += 0.1 * rng.normal(size=tokens.shape)
    return Features(tokens.astype(np.float32), labels)


@pytest.mark.parametrize("pooling", ["query", "block"])
def test_finds_the_token_that_matters(pooling):
    train, test = hidden(0), hidden(1)
    path = "encoder.patches"
    probe = AttentiveProbe(pooling=pooling, **QUICK)
    assert probe.paths == (path,)
    assert probe({path: train}, {path: test})["accuracy"] > 0.95
    means = [Features(part.values.mean(axis=1), part.labels) for part in (train, test)]
    assert LinearProbe().score(*means)["accuracy"] < 0.8


def test_chooses_the_learning_rate_on_training_examples():
    train, test = hidden(0), hidden(1)
    probe = AttentiveProbe(learning_rates=(1e-2, 1e-7), epochs=15, batch_size=32)
    result = probe.score(train, test)
    assert result["learning_rate"] == pytest.approx(1e-2)
    assert result["accuracy"] > 0.9 and result["validation_accuracy"] > 0.9
    assert result == probe.score(train, test)
    other = probe.score(train, Features(test.values, test.labels[::-1].copy()))
    assert other["learning_rate"] == result["learning_rate"]
    assert other["accuracy"] < 0.6


def test_rates_do_not_influence_each_other():
    train, test = hidden(0), hidden(1)
    options = dict(QUICK, validation_share=0.1, epochs=8)
    alone = AttentiveProbe(**{**options, "learning_rates": (1e-2,)}).score(train, test)
    among = AttentiveProbe(**{**options, "learning_rates": (1e-7, 1e-2)}).score(train, test)
    assert among["learning_rate"] == alone["learning_rate"]
    # Rounding may turn a few of the 256 answers after so short a training.
    assert among["accuracy"] == pytest.approx(alone["accuracy"], abs=0.02)


def test_a_vector_is_one_token_and_absent_classes_are_wrong():
    train, test = hidden(0), hidden(1)
    row = np.arange(len(train)), train.values[:, :, 3].argmax(axis=1)
    vectors = Features(train.values[row], train.labels)
    row = np.arange(len(test)), test.values[:, :, 3].argmax(axis=1)
    unknown = np.where(test.labels == 2, 7, test.labels)
    result = AttentiveProbe(**QUICK).score(vectors, Features(test.values[row], unknown))
    assert result["accuracy"] == pytest.approx((test.labels != 2).mean(), abs=0.01)


def test_refusals():
    for wrong, message in (
        (dict(pooling="mean"), "query, block"),
        (dict(learning_rates=()), "above 0"),
        (dict(validation_share=0), "among several"),
        (dict(validation_share=1.0), r"\[0, 1\)"),
        (dict(epochs=0), "at least one epoch"),
    ):
        with pytest.raises(UserError, match=message):
            AttentiveProbe(**wrong)
    train = hidden(0)
    with pytest.raises(UserError, match="5 heads"):
        AttentiveProbe(heads=5, **QUICK).score(train, train)
    one = Features(train.values, np.zeros_like(train.labels))
    with pytest.raises(UserError, match="two classes"):
        AttentiveProbe(**QUICK).score(one, one)

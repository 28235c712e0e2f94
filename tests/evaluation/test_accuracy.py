"""Accuracy counts every example once."""

import jax
import numpy as np
import pytest

from maskjax.errors import UserError
from maskjax.evaluation import Accuracy, Evaluation, Features
from maskjax.evaluation.features import extract, selector
from maskjax.systems import build_system
from maskjax.training.run import prepare
from test_configs import load

N, CLASSES = 23, 9


def logits(n=N, seed=0):
    return np.random.default_rng(seed).normal(size=(n, CLASSES)).astype(np.float32)


def batches(values, labels, size):
    """The last batch is padded, record 3 is unreadable; their rows would be right, if counted."""
    for start in range(0, len(values), size):
        rows = np.arange(start, start + size)
        real = (rows < len(values)) & (rows != 3)
        batch = np.zeros((size, CLASSES), np.float32)
        batch[real] = values[rows[real]]
        batch[~real, 0] = 9.0
        label = np.where(real, labels[np.minimum(rows, len(values) - 1)], 0)
        yield {"logits": batch, "label": label.astype(np.int32), "_mask": real}


@pytest.mark.parametrize("size", [4, 8, 64])
def test_the_batches_do_not_matter(size):
    values, labels = logits(), np.random.default_rng(1).integers(0, CLASSES, N)
    select = selector(lambda _, batch: {"head": {"logits": batch["logits"]}}, ["head.logits"])
    test = extract(select, (), batches(values, labels, size), jax.device_put)
    real = np.arange(N) != 3
    order = np.argsort(-values[real], axis=1)
    expected = {
        f"top_{k}": (order[:, :k] == labels[real][:, None]).any(axis=1).sum() / (N - 1)
        for k in (1, 5)
    }
    assert Accuracy()({}, test) == pytest.approx(expected, abs=1e-12)


def test_constant_logits_are_not_right():
    test = {"head.logits": Features(np.zeros((4, CLASSES), np.float32), np.zeros(4, np.int32))}
    assert Accuracy()({}, test) == {"top_1": 0.0, "top_5": 0.0}


@pytest.mark.parametrize(
    ("values", "label", "words"),
    [(np.zeros((1, 3)), 3, "tells 3 classes"), (np.full((1, 3), np.nan), 0, "NaN or infinity")],
)
def test_what_cannot_be_judged(values, label, words):
    test = {"head.logits": Features(values.astype(np.float32), np.array([label], np.int32))}
    with pytest.raises(UserError, match=words):
        Accuracy()({}, test)


def test_the_training_split_is_not_encoded_for_it(monkeypatch):
    config = load("finetune:tiny")
    run = prepare(config, jax.devices()[:1])
    evaluation = Evaluation(config, run.system, run.mesh)
    read = []
    whole = evaluation._batches
    monkeypatch.setattr(evaluation, "_batches", lambda split: read.append(split) or whole(split))
    metrics = evaluation(build_system(config).init(jax.random.key(0)), baselines=True)
    assert read == ["test"]
    assert set(metrics) == {"eval/accuracy/top_1", "eval/accuracy/top_5"}

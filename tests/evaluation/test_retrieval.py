"""Tests of maskjax.evaluation.retrieval."""

import numpy as np
import pytest

from maskjax import config
from maskjax.errors import UserError
from maskjax.evaluation import Features, Retrieval
from maskjax.evaluation.retrieval import fitted, ranks

RNG = np.random.default_rng(0)


def features(x, y):
    return {"a": Features(x, None), "b": Features(y, None)}


def test_ranks_count_what_is_at_least_as_similar():
    keys = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    queries = np.array([[3.0, 0.1], [1.0, 0.9], [0.0, -1.0]])
    np.testing.assert_array_equal(ranks(queries, keys), [0, 2, 1])
    np.testing.assert_array_equal(ranks(np.ones((4, 2)), np.ones((4, 2))), [3, 3, 3, 3])
    np.testing.assert_array_equal(ranks(np.zeros((2, 2)), np.zeros((2, 2))), [1, 1])


def test_equal_spaces_need_no_fit():
    x = RNG.normal(size=(60, 8))
    found = Retrieval("a", "b")(features(x, x), features(x, x + 0.01 * RNG.normal(size=x.shape)))
    assert found["recall_at_1"] == found["reverse_recall_at_1"] == 1.0
    other = Retrieval("a", "b")(features(x, x), features(x, RNG.normal(size=x.shape)))
    assert (
        other["recall_at_1"] < 0.15
        and other["recall_at_1"] <= other["recall_at_5"] <= other["recall_at_10"]
    )
    # Chance is 10 / 60.
    assert abs(other["recall_at_10"] - 1 / 6) < 0.15


@pytest.mark.parametrize("width", [5, 300])
def test_a_linear_map_between_two_spaces_is_found(width):
    hidden = RNG.normal(size=(200, 5))
    x, y = (hidden @ RNG.normal(size=(5, n)) + 3.0 for n in (width, 7))
    x, y = (z + 0.01 * RNG.normal(size=z.shape) for z in (x, y))
    train, test = features(x[:150], y[:150]), features(x[150:], y[150:])
    figures = Retrieval("a", "b", fit="ridge")(train, test)
    assert figures["recall_at_1"] > 0.9 and figures["reverse_recall_at_1"] > 0.9
    if width != 7:
        assert Retrieval("a", "b")(train, test) == {}


def test_the_fit_is_ridge_regression():
    x, y = RNG.normal(size=(40, 6)), RNG.normal(size=(40, 3))
    y[:, 0] += x[:, 1]
    predicted, truth = fitted(x[:30], y[:30], x[30:], y[30:])
    mean, std = x[:30].mean(0), x[:30].std(0)
    a, b = (x[:30] - mean) / std, (y[:30] - y[:30].mean(0)) / y[:30].std(0)
    np.testing.assert_allclose(truth, (y[30:] - y[:30].mean(0)) / y[:30].std(0))
    errors = {}
    for strength in 10.0 ** np.arange(-4, 5):
        penalty = strength * np.linalg.eigvalsh(a.T @ a).mean() * np.eye(6)
        loss = 0.0
        for i in range(30):
            rest = np.arange(30) != i
            w = np.linalg.solve(a[rest].T @ a[rest] + penalty, a[rest].T @ b[rest])
            loss += ((b[i] - a[i] @ w) ** 2).mean()
        w = np.linalg.solve(a.T @ a + penalty, a.T @ b)
        errors[loss] = ((x[30:] - mean) / std) @ w
    np.testing.assert_allclose(predicted, errors[min(errors)], rtol=1e-6, atol=1e-9)


def test_constant_features_are_no_error():
    x = np.ones((20, 4))
    figures = Retrieval("a", "b", fit="ridge")(features(x, x), features(x, x))
    assert set(figures.values()) == {0.0}


def test_arguments():
    section = config.part("evaluation.Retrieval", query="alone.image.mean", key="alone.text.mean")
    built = config.build(section)
    assert built.paths == ("alone.image.mean", "alone.text.mean") and built.raw == {}
    assert Retrieval("a", "b", query_input="image").raw == {"a": "image"}
    with pytest.raises(UserError, match="'none' or 'ridge', not 'ridg'"):
        Retrieval("a", "b", fit="ridg")

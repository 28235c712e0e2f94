import numpy as np
import pytest

from maskjax.errors import UserError
from maskjax.evaluation import KNN, Features, FewLabels, FewShot


def clusters(n, classes=4, width=6, spread=0.5, seed=0):
    """Gaussian clusters, [n, width], around centres that depend on nothing."""
    centres = np.random.default_rng(7).normal(size=(classes, width))
    rng = np.random.default_rng(seed)
    labels = np.arange(n, dtype=np.int32) % classes
    values = centres[labels] + spread * rng.normal(size=(n, width))
    return Features(values.astype(np.float32), labels)


def test_agrees_with_the_normal_equations():
    train, test = clusters(40), clusters(60, seed=1)
    evaluator = FewShot(shots=(3,), draws=2, regularisations=(2.0,))
    expected = []
    mean, deviation = train.values.mean(axis=0), train.values.std(axis=0)
    known, asked = (train.values - mean) / deviation, (test.values - mean) / deviation
    for draw in range(2):
        rows = evaluator._order(train.labels, draw).reshape(-1)
        assert sorted(train.labels[rows]) == sorted([0, 1, 2, 3] * 3)
        x, y = known[rows], np.where(train.labels[rows, None] == np.arange(4), 1.0, -1.0)
        centre = x.mean(axis=0)
        gram = (x - centre).T @ (x - centre) + 2.0 * np.eye(6)
        weights = np.linalg.solve(gram, (x - centre).T @ (y - y.mean(axis=0)))
        scores = (asked - centre) @ weights + y.mean(axis=0)
        expected.append(np.mean(scores.argmax(axis=1) == test.labels))
    scores = evaluator.score(train, test)
    assert scores["accuracy_3_shot"] == pytest.approx(np.mean(expected))
    assert scores["deviation_3_shot"] == pytest.approx(np.std(expected))


def test_more_shots_are_better_and_contain_the_fewer():
    train, test = clusters(400, spread=1.0), clusters(400, spread=1.0, seed=1)
    evaluator = FewShot()
    scores = evaluator.score(train, test)
    assert scores["accuracy_1_shot"] < scores["accuracy_5_shot"] < scores["accuracy_10_shot"]
    assert scores == evaluator.score(train, test)
    few, many = FewShot(shots=(2,)), FewShot(shots=(2, 9))
    np.testing.assert_array_equal(few._order(train.labels, 0), many._order(train.labels, 0)[:, :2])
    assert few.score(train, test)["accuracy_2_shot"] == many.score(train, test)["accuracy_2_shot"]


def test_a_share_of_the_labels():
    train, test = clusters(400, spread=1.0), clusters(100, seed=1)
    evaluator = FewLabels(KNN(feature="x"), share=0.05)
    assert evaluator.paths == ("x",) and evaluator.needs_labels and not evaluator.tokens
    seen = []

    class Spy(KNN):
        def score(self, train, test):
            seen.append(train)
            return super().score(train, test)

    scores = FewLabels(Spy(feature="x"), share=0.05)({"x": train}, {"x": test})
    assert np.bincount(seen[0].labels).tolist() == [5, 5, 5, 5]
    assert 0.25 < scores["accuracy"] <= 1


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: FewShot(shots=()), "shots and draws"),
        (lambda: FewShot(shots=(0,)), "shots and draws"),
        (lambda: FewShot(regularisations=(0.0,)), "above 0"),
        (lambda: FewLabels(KNN(), share=1.0), "below 1"),
        (lambda: FewShot(shots=(11,)).score(clusters(40), clusters(4)), "10 training examples"),
    ],
)
def test_mistakes(make, words):
    with pytest.raises(UserError, match=words):
        make()

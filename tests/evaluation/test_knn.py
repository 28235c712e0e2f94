import jax
import numpy as np
import pytest

from maskjax.errors import UserError
from maskjax.evaluation.features import Features
from maskjax.evaluation.knn import KNN, knn_predict


def by_hand(train, labels, test, k, temperature):
    """The definition, in float64 and without chunks."""
    unit = [x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-300) for x in (train, test)]
    similarities = unit[1].astype(np.float64) @ unit[0].T.astype(np.float64)
    votes = np.zeros((len(test), labels.max() + 1))
    for row, similarity in enumerate(similarities):
        for i in np.argsort(-similarity, kind="stable")[:k]:
            votes[row, labels[i]] += np.exp(similarity[i] / temperature)
    return votes.argmax(axis=1)


@pytest.mark.parametrize("train_chunk,test_chunk", [(1000, 1000), (64, 7), (5, 50), (199, 49)])
@pytest.mark.parametrize("k,temperature", [(1, 0.07), (10, 0.07), (150, 0.5)])
def test_agrees_with_the_definition_in_any_chunks(train_chunk, test_chunk, k, temperature):
    rng = np.random.default_rng(k)
    train = rng.normal(size=(200, 6)).astype(np.float32)
    test = rng.normal(size=(50, 6)).astype(np.float32) * 100
    labels = rng.integers(0, 5, 200).astype(np.int32)
    predicted = knn_predict(
        train,
        labels,
        test,
        k=k,
        temperature=temperature,
        train_chunk=train_chunk,
        test_chunk=test_chunk,
    )
    np.testing.assert_array_equal(predicted, by_hand(train, labels, test, k, temperature))
    assert predicted.dtype == np.int32


def test_weights_decide_not_the_count():
    train = np.array([[1, 0], [0.6, 0.8], [0.6, -0.8]], np.float32)
    labels = np.array([1, 0, 0], np.int32)
    query = np.array([[2, 0]], np.float32)
    assert knn_predict(train, labels, query, k=3, temperature=0.07) == [1]
    assert knn_predict(train, labels, query, k=3, temperature=100.0) == [0]


def test_equal_votes_go_to_the_smallest_class():
    train = np.ones((4, 3), np.float32)
    labels = np.array([3, 2, 3, 2], np.int32)
    assert knn_predict(train, labels, np.ones((1, 3), np.float32), k=4) == [2]


def test_small_temperature_and_huge_or_tiny_vectors_do_not_overflow():
    train = np.array([[1e30, 0], [0, 1e-30]], np.float32)
    labels = np.array([0, 1], np.int32)
    test = np.array([[1e-30, 1e-32], [1e28, 1e30]], np.float32)
    predicted = knn_predict(train, labels, test, k=2, temperature=1e-4)
    np.testing.assert_array_equal(predicted, [0, 1])


def test_zero_vectors_are_similar_to_nothing():
    train = np.array([[0, 0], [1, 0], [-1, 0]], np.float32)
    labels = np.array([0, 1, 2], np.int32)
    test = np.array([[0, 0], [1, 0], [-1, 0]], np.float32)
    predicted = knn_predict(train, labels, test, k=3)
    np.testing.assert_array_equal(predicted, [0, 1, 2])  # equal votes, then the nearest


def test_k_is_clipped_to_the_training_set():
    train = Features(np.eye(3, dtype=np.float32), np.arange(3, dtype=np.int32))
    assert KNN(k=1000).score(train, train) == {"accuracy": 1.0}


def test_accuracy_on_digits():
    from sklearn.datasets import load_digits

    digits = load_digits()
    values, labels = digits.data.astype(np.float32), digits.target.astype(np.int32)
    train, test = Features(values[:1000], labels[:1000]), Features(values[1000:], labels[1000:])
    with jax.debug_nans(True):
        accuracy = KNN().score(train, test)["accuracy"]
    expected = by_hand(train.values, train.labels, test.values, 20, 0.07)
    assert accuracy == pytest.approx(np.mean(expected == test.labels), abs=0.003)
    assert accuracy > 0.9


def test_a_class_unseen_in_training_counts_as_wrong():
    train = Features(np.eye(2, dtype=np.float32), np.array([0, 1], np.int32))
    test = Features(np.eye(2, dtype=np.float32), np.array([0, 9], np.int32))
    assert KNN().score(train, test) == {"accuracy": 0.5}


@pytest.mark.parametrize(
    "values,labels,message",
    [
        (np.zeros((0, 2)), np.zeros(0), "empty"),
        (np.full((1, 2), np.nan), np.zeros(1), "NaN"),
        (np.array([[np.inf, -np.inf]]), np.zeros(1), "NaN or infinity"),
        (np.zeros((1, 2)), -np.ones(1), "-1"),
        (np.zeros((1, 3)), np.zeros(1), "3 values per example"),
        (np.zeros((2, 2)), np.zeros(1), "one vector and one label"),
    ],
)
def test_bad_features_are_one_sentence(values, labels, message):
    good = Features(np.ones((4, 2), np.float32), np.zeros(4, np.int32))
    bad = Features(values.astype(np.float32), labels.astype(np.int32))
    with pytest.raises(UserError, match=message):
        KNN().score(bad, good)


@pytest.mark.parametrize("arguments", [{"k": 0}, {"temperature": 0.0}, {"temperature": np.nan}])
def test_bad_arguments(arguments):
    with pytest.raises(UserError, match=next(iter(arguments))):
        KNN(**arguments)

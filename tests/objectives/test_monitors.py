import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maskjax.errors import UserError
from maskjax.evaluation.spread import feature_std
from maskjax.objectives import FeatureSpread, WeightedRegression
from maskjax.objectives.monitors import spread


def test_spread_is_that_of_the_evaluation():
    features = np.random.default_rng(0).normal(size=(64, 8)).astype(np.float32)
    assert spread(jnp.asarray(features), jnp.ones(64)) == pytest.approx(
        feature_std(features), rel=1e-5
    )


def test_a_collapse_shows():
    features = jnp.broadcast_to(jnp.array([[1.0, -2.0, 3.0]]), (8, 3))
    value = FeatureSpread("a.b")({"a": {"b": features * jnp.arange(1, 9)[:, None]}}, {})
    assert value.total == pytest.approx(0, abs=1e-5)
    assert value.count == 8


def test_examples_that_only_fill_the_batch_do_not_count():
    features = jnp.asarray(np.random.default_rng(1).normal(size=(6, 4)), jnp.float32)
    padded = jnp.concatenate([features, 100 * jnp.ones((2, 4))])
    value = FeatureSpread("f")({"f": padded}, {"_mask": jnp.arange(8) < 6})
    assert value.total / value.count == pytest.approx(
        float(spread(features, jnp.ones(6))), rel=1e-5
    )


def test_watching_has_no_gradient_and_rewarding_a_finite_one():
    def loss(features, weight):
        value = FeatureSpread("f", weight)({"f": features}, {})
        return value.total / value.count

    features = jnp.asarray(np.random.default_rng(2).normal(size=(5, 4)), jnp.float32)
    assert not jax.grad(loss)(features, 0.0).any()
    assert jax.grad(loss)(features, -1.0).any()
    assert np.isfinite(jax.grad(loss)(jnp.ones((5, 4)), -1.0)).all()


OUT = {
    "prediction": jnp.array([[[[0.0, 0.0], [2.0, 2.0]]], [[[9.0, 9.0], [1.0, 0.0]]]]),
    "target": jnp.zeros((2, 1, 2, 2)),
    "weights": jnp.array([[[1.0, 1.0]], [[0.0, 1.0]]]),
}


@pytest.mark.parametrize(("error", "expected"), [("l2", 4.5), ("l1", 2.5), ("smooth_l1", 1.75)])
def test_weighted_regression(error, expected):
    term = WeightedRegression("prediction", "target", "weights", error)
    value = term(OUT, {})
    assert (value.total, value.count) == (pytest.approx(expected), 3)
    value = term(OUT, {"_mask": jnp.array([False, True])})
    assert (value.total, value.count) == (
        pytest.approx({"l2": 0.5, "l1": 0.5, "smooth_l1": 0.25}[error]),
        1,
    )


def test_targets_are_not_differentiated():
    term = WeightedRegression("prediction", "target", "weights")
    gradient = jax.grad(lambda t: term({**OUT, "target": t}, {}).total)(jnp.ones((2, 1, 2, 2)))
    assert not gradient.any()


def test_unknown_error():
    with pytest.raises(UserError, match="'huber'"):
        WeightedRegression("a", "b", "c", error="huber")

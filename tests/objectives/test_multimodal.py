"""Tests of the terms of modalities."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maskjax.errors import UserError
from maskjax.masking import Hidden
from maskjax.objectives import CrossEntropyPerExample, RegressionPerExample

PREDICTION = jnp.asarray([[1.0, 2.0, 3.0], [1.0, 1.0, 1.0], [5.0, 5.0, 5.0]])[..., None]
HIDDEN = jnp.asarray([[True, True, False], [False, False, True], [False, False, False]])
OUT = {
    "prediction": PREDICTION,
    "target": jnp.zeros((3, 3, 1)),
    "masks": {"a": Hidden(HIDDEN)},
    "valid": jnp.asarray([[True, False, True], [True] * 3, [True] * 3]),
    "s": jnp.float32(0.5),
}
PATHS = dict(prediction="prediction", target="target", mask="masks.a")


def mean(term, batch=None, out=OUT):
    value = term(out, batch or {})
    return float(value.total / jnp.maximum(value.count, 1.0))


def test_examples_count_alike_and_empty_ones_do_not():
    # (1 + 4) / 2 and 1; the third example has nothing masked.
    assert mean(RegressionPerExample(**PATHS)) == pytest.approx((2.5 + 1) / 2)
    assert mean(RegressionPerExample(**PATHS, empty="zero")) == pytest.approx((2.5 + 1) / 3)
    assert mean(RegressionPerExample(**PATHS, error="l1")) == pytest.approx((1.5 + 1) / 2)


def test_padding_and_unreadable_examples_do_not_count():
    valid = RegressionPerExample(**PATHS, valid="valid")
    assert mean(valid) == pytest.approx((1 + 1) / 2)
    assert mean(valid, {"_mask": jnp.asarray([True, False, True])}) == pytest.approx(1)
    everything = RegressionPerExample(prediction="prediction", target="target", valid="valid")
    assert mean(everything) == pytest.approx(((1 + 9) / 2 + 1 + 25) / 3)
    nothing = mean(valid, {"_mask": jnp.zeros(3, bool)})
    assert nothing == 0.0


def test_gradients_are_finite_where_an_example_has_nothing_masked():
    def loss(prediction):
        return RegressionPerExample(**PATHS)({**OUT, "prediction": prediction}, {}).total

    gradient = np.asarray(jax.grad(loss)(PREDICTION))
    assert np.isfinite(gradient).all() and not gradient[2].any() and gradient[0, 0] > 0


def test_learned_uncertainty():
    weighed = RegressionPerExample(**PATHS, log_variance="s")
    assert mean(weighed) == pytest.approx(np.exp(-0.5) * 1.75 + 0.5)
    # Nothing to predict: no loss, and no gain by growing uncertain.
    nothing = {**OUT, "masks": {"a": Hidden(jnp.zeros((3, 3), bool))}}

    def loss(s):
        return weighed({**nothing, "s": s}, {}).total

    assert loss(jnp.float32(0.5)) == 0 and jax.grad(loss)(jnp.float32(0.5)) == 0


def test_cross_entropy_of_words_and_of_maps():
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(3, 3, 2 * 4)), jnp.float32)
    numbers = jnp.asarray(np.random.default_rng(1).integers(0, 4, (3, 3, 2)))
    out = {**OUT, "prediction": logits, "target": numbers}
    p = np.asarray(jax.nn.log_softmax(logits.reshape(3, 3, 2, 4)))
    errors = -np.take_along_axis(p, np.asarray(numbers)[..., None], -1)[..., 0].mean(-1)
    expected = (errors[0, :2].mean() + errors[1, 2]) / 2
    assert mean(CrossEntropyPerExample(**PATHS), out=out) == pytest.approx(expected, rel=1e-5)
    words = {**out, "prediction": logits[..., :4], "target": numbers[..., 0]}
    value = CrossEntropyPerExample(**PATHS)(words, {})
    right = np.asarray(logits[..., :4]).argmax(-1) == np.asarray(numbers[..., 0])
    assert value.metrics["right"] == pytest.approx(right[np.asarray(HIDDEN)].mean())


def test_unknown_options():
    with pytest.raises(UserError, match="empty must be one of skip, zero"):
        CrossEntropyPerExample(**PATHS, empty="drop")
    with pytest.raises(UserError, match="error must be one of"):
        RegressionPerExample(**PATHS, error="l3")

"""Cross-entropy with labels, smoothed and mixed, against the reference."""

import jax.numpy as jnp
import numpy as np
import pytest

from maskjax.objectives import LabelCrossEntropy


def mean(value):
    return float(value.total / value.count)


def test_reference_losses(golden):
    arrays = golden("mae_recipes")
    out = {"head": {"logits": jnp.asarray(arrays["in/mix/logits"])}}
    labels = jnp.asarray(arrays["in/mix/y"])
    term = LabelCrossEntropy(smoothing=float(arrays["in/mix/smoothing"]))
    batch = {"label": labels}
    assert mean(term(out, batch)) == pytest.approx(float(arrays["out/mix/ls_loss"]), rel=1e-6)
    share = jnp.full(len(labels), arrays["in/mix/lam"])
    batch |= {"_partner": labels[::-1], "_share": share}
    assert mean(term(out, batch)) == pytest.approx(float(arrays["out/mix/loss"]), rel=1e-6)
    # The same by the reference's soft labels, whose mass is 1.
    target = arrays["out/mix/target"]
    np.testing.assert_allclose(target.sum(axis=1), 1.0, rtol=1e-6)
    logits = arrays["in/mix/logits"].astype(np.float64)
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    assert mean(term(out, batch)) == pytest.approx(-(target * log_p).sum(axis=1).mean(), rel=1e-6)


def test_what_could_not_be_read_does_not_count():
    logits = jnp.array([[2.0, 0.0], [0.0, 9.0]])
    batch = {"label": jnp.array([0, -1]), "_mask": jnp.array([True, False])}
    value = LabelCrossEntropy()({"head": {"logits": logits}}, batch)
    assert float(value.count) == 1
    assert mean(value) == pytest.approx(np.log(1 + np.exp(-2.0)), rel=1e-6)
    assert float(value.metrics["accuracy"]) == 1

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maskjax.errors import UserError
from maskjax.masking import mask_from_indices
from maskjax.objectives import MaskedCrossEntropy

B, N, V = 3, 4, 5
RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(B, N, V)).astype(np.float32)
CODES = RNG.integers(0, V, (B, N))
MASK = mask_from_indices(jnp.array([[0, 1], [2, 0], [3, 1]]), N)
HIDDEN = np.array([[0, 0, 1, 1], [0, 1, 0, 1], [1, 0, 1, 0]], bool)
OUT = {"decoder": {"logits": jnp.asarray(LOGITS)}, "codes": jnp.asarray(CODES)}
OUT |= {"masks": {"image": MASK, "map": jnp.asarray(HIDDEN)}}


def term(**options):
    return MaskedCrossEntropy(**dict(logits="decoder.logits", target="codes") | options)


def by_hand(counted, smoothing=0.0):
    p = np.exp(LOGITS.astype(np.float64))
    p = np.log(p / p.sum(-1, keepdims=True))
    soft = (1 - smoothing) * np.eye(V)[CODES] + smoothing / V
    return -(p * soft).sum(-1)[counted].mean()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("mask", ["masks.image", "masks.map", None])
def test_is_the_mean_over_masked_tokens(mask, smoothing):
    value = term(mask=mask, smoothing=smoothing)(OUT, {})
    counted = HIDDEN if mask else np.ones_like(HIDDEN)
    assert value.count == counted.sum()
    np.testing.assert_allclose(value.total / value.count, by_hand(counted, smoothing), rtol=1e-5)
    hits = (LOGITS.argmax(-1) == CODES)[counted].mean()
    np.testing.assert_allclose(value.metrics["accuracy"], hits, rtol=1e-6)


def test_padding_and_ignored_codes_do_not_count():
    real = np.array([True, False, True])
    value = term(ignore=int(CODES[0, 2]))(OUT, {"_mask": jnp.asarray(real)})
    counted = HIDDEN & real[:, None] & (CODES[0, 2] != CODES)
    assert value.count == counted.sum()
    np.testing.assert_allclose(value.total / value.count, by_hand(counted), rtol=1e-5)


def test_codes_may_come_from_the_batch_and_be_out_of_range_where_ignored():
    codes = CODES.copy()
    codes[~HIDDEN] = -100
    value = term(target="batch.codes", mask=None, ignore=-100)(OUT, {"codes": jnp.asarray(codes)})
    np.testing.assert_allclose(value.total / value.count, by_hand(HIDDEN), rtol=1e-5)


def test_gradient_is_softmax_minus_target():
    def loss(logits):
        value = term()(OUT | {"decoder": {"logits": logits}}, {})
        return value.total / value.count

    gradient = jax.grad(loss)(jnp.asarray(LOGITS))
    p = np.exp(LOGITS) / np.exp(LOGITS).sum(-1, keepdims=True)
    expected = (p - np.eye(V)[CODES]) * HIDDEN[:, :, None] / HIDDEN.sum()
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-7)


def test_smoothing_is_checked():
    with pytest.raises(UserError, match="smoothing"):
        term(smoothing=1.0)

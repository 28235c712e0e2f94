import jax
import jax.numpy as jnp
import numpy as np

from maskjax.objectives import BagOfWords, bag_of_words

V = 7


def test_repeated_words_weigh_once():
    ids = jnp.asarray([[2, 5, 5, 6, 3], [2, 4, 3, 0, 0]])
    valid = jnp.asarray([[0, 1, 1, 1, 0], [0, 1, 0, 0, 0]], bool)
    bag = bag_of_words(ids, valid, V)
    expected = np.zeros((2, V))
    expected[0, [5, 6]], expected[1, 4] = 1 / 3, 1
    np.testing.assert_allclose(bag, expected, rtol=1e-6)
    assert not bag_of_words(ids, jnp.zeros_like(valid), V).any()


def test_bag_is_cross_entropy_per_text():
    logits = jax.random.normal(jax.random.key(0), (2, V))
    bag = jnp.asarray([[0.5, 0.5, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 1.0]])
    out = {"encoder": {"bag": logits}, "targets": {"bag": bag}}
    logs = np.asarray(jax.nn.log_softmax(logits))
    value = BagOfWords()(out, {})
    assert value.count == 2
    np.testing.assert_allclose(value.total, -logs[0, :2].mean() - logs[1, 6], rtol=1e-6)
    value = BagOfWords()(out, {"_mask": jnp.asarray([False, True])})
    np.testing.assert_allclose(value.total / value.count, -logs[1, 6], rtol=1e-6)

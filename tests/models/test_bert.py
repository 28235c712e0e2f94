import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maskjax.errors import UserError
from maskjax.models import BERT
from maskjax.models.bert import dropout

V, L = 20, 8
BERT_TINY = BERT(width=8, depth=2, heads=2, positions=L, vocabulary=V, dropout=0.5, dtype="float32")
IDS = jnp.asarray([[2, 5, 6, 7, 8, 9, 3, 0], [2, 5, 6, 3, 0, 0, 0, 0]])


@pytest.fixture(scope="module")
def variables():
    init = jax.jit(lambda key: BERT_TINY.init(key, IDS, IDS != 0, method="initialise"))
    # Larger than they are initialised, so that differences stand out from rounding.
    return jax.tree.map(lambda leaf: 10 * leaf, init(jax.random.key(0)))


@pytest.fixture(scope="module")
def encode(variables):
    def run(ids, key=None):
        return BERT_TINY.apply(variables, ids, ids != 0, key)

    return jax.jit(run)


def test_padding_has_no_influence(encode):
    out = encode(IDS)
    # The shorter text with other ids where padding was, which stays padding for the mask.
    shorter = encode(jnp.asarray([IDS[1], IDS[0]]))
    np.testing.assert_allclose(out["cls"][1], shorter["cls"][0], rtol=1e-5, atol=1e-6)
    tokens = np.asarray(out["tokens"])
    mean, scale = tokens[1, 1:4].mean(axis=0), np.abs(tokens[1, 1:4]).max()  # values cancel
    np.testing.assert_allclose(out["mean"][1], mean, rtol=1e-5, atol=1e-6 * scale)
    np.testing.assert_array_equal(out["tokens"], out["blocks"][-1])


def test_other_words_and_other_places_are_other_vectors(encode):
    swapped = IDS.at[0, 1].set(6).at[0, 2].set(5)
    change = np.abs(encode(swapped)["cls"] - encode(IDS)["cls"]).max(axis=1)
    assert change[0] > 1e-3 and change[1] == 0


def test_dropout_follows_its_key(encode):
    still, first, again, second = (
        encode(IDS, key)["cls"] for key in (None, *map(jax.random.key, (0, 0, 1)))
    )
    np.testing.assert_array_equal(first, again)
    assert jnp.abs(first - still).max() > 1e-3 and jnp.abs(first - second).max() > 1e-3


def test_dropout_keeps_the_mean():
    x = dropout(jnp.ones((200, 100)), 0.25, jax.random.key(0))
    assert set(np.unique(x).tolist()) == {0.0, np.float32(1 / 0.75)}
    assert abs(x.mean() - 1) < 0.02


def test_tables(variables):
    params = variables["params"]
    assert params["word"].shape == (V, 8) and params["segment"].shape == (2, 8)
    assert params["blocks"]["attention"]["query"]["kernel"].shape == (2, 8, 8)


def test_texts_that_are_too_long():
    ids = jnp.zeros((1, L + 1), jnp.int32)
    with pytest.raises(UserError, match="longer than the 8 positions"):
        jax.eval_shape(lambda: BERT_TINY.init(jax.random.key(0), ids, ids != 0))

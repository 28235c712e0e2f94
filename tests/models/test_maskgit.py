"""The transformer over codes, and stacks of blocks of any kind."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maskjax.errors import UserError
from maskjax.models import CodeTransformer, PostNormBlock
from maskjax.models.adaln import AdaLNTransformer, time_embedding
from maskjax.models.stack import Stack

V, CLASSES = 6, 3
NETWORK = dict(width=8, depth=2, heads=2, dtype="float32")


@pytest.fixture(scope="module")
def params():
    codes = jnp.zeros((1, 4), jnp.int32)
    init = jax.jit(
        lambda: CodeTransformer(**NETWORK).init(
            jax.random.key(0), codes, codes > 0, codes[:, 0], V, CLASSES
        )
    )
    return jax.tree.map(lambda leaf: leaf + 0.1, init())


@functools.cache
def compiled(dropout):
    network = CodeTransformer(**NETWORK, dropout=dropout)
    return jax.jit(lambda *a: network.apply(*a[:4], V, CLASSES, *a[4:]))


def predict(params, codes, hidden, label, rng=None, dropout=0.1):
    """Runs on four rows, of which the last are copies of the first, and returns those given."""
    rows = [jnp.resize(jnp.array(x), (4, *np.shape(x)[1:])) for x in (codes, hidden, label)]
    out = compiled(dropout)(params, *rows, rng)
    return {"logits": out["logits"][: len(codes)]}


def test_hidden_codes_are_not_seen(params):
    hidden = [[False, True, False, True]]
    out = predict(params, [[1, 2, 3, 4]], hidden, [0])
    other = predict(params, [[1, 5, 3, 0]], hidden, [0])
    assert out["logits"].shape == (1, 4, V)
    np.testing.assert_array_equal(out["logits"], other["logits"])
    seen = predict(params, [[2, 2, 3, 4]], hidden, [0])
    assert not np.allclose(out["logits"], seen["logits"], atol=1e-4)


def test_the_class_is_seen_unless_unknown(params):
    codes, hidden = [[1, 2, 3, 4]] * 4, [[False] * 4] * 4
    logits = np.asarray(predict(params, codes, hidden, [0, 1, 2, CLASSES])["logits"])
    assert all(not np.allclose(logits[i], logits[j], atol=1e-5) for i in range(4) for j in range(i))


def test_every_place_reads_every_other(params):
    codes = np.array([[1, 2, 3, 4]])
    base = predict(params, codes, codes < 0, [0])["logits"]
    for i in range(4):
        changed = codes.copy()
        changed[0, i] = 0
        difference = np.abs(predict(params, changed, codes < 0, [0])["logits"] - base).max(-1)
        assert (difference > 1e-6).all()


def test_dropout_needs_a_key(params):
    codes, hidden = [[1, 2, 3, 4]], [[False] * 4]
    a, b, c = (
        predict(params, codes, hidden, [0], rng, dropout=0.5)["logits"]
        for rng in (None, jax.random.key(0), jax.random.key(1))
    )
    assert not np.allclose(a, b)
    assert not np.allclose(b, c)
    still = predict(params, codes, hidden, [0], jax.random.key(0), dropout=0.0)
    np.testing.assert_allclose(a, still["logits"], atol=1e-6)


def test_the_block_is_normalised_after_each_branch():
    x = 3.0 * jax.random.normal(jax.random.key(0), (1, 4, 8)) + 1.0
    y, _ = PostNormBlock(heads=2).init_with_output(jax.random.key(1), x)
    np.testing.assert_allclose(y.mean(-1), 0.0, atol=1e-5)
    np.testing.assert_allclose(y.std(-1), 1.0, atol=1e-3)


def test_stacks_do_not_depend_on_how_they_run():
    x = jax.random.normal(jax.random.key(0), (2, 4, 8))

    def run(**execution):
        stack = Stack((PostNormBlock(2),), 2, **execution)
        params = jax.jit(stack.init)(jax.random.key(1), x)
        return jax.jit(lambda p, k: stack.apply(p, x, k))(params, jax.random.key(2)), params

    (y, blocks), params = run()
    (z, scanned), other = run(scan=True, remat="full")
    jax.tree.map(np.testing.assert_array_equal, params, other)
    np.testing.assert_allclose(y, z, atol=1e-5)
    np.testing.assert_allclose(blocks[0], scanned[0], atol=1e-5)
    kernels = params["params"]["blocks"]["mlp"]["up"]["kernel"]
    assert kernels.shape == (2, 8, 32)
    assert not np.allclose(kernels[0], kernels[1])


def test_fresh_adaptive_blocks_are_the_identity():
    x = jax.random.normal(jax.random.key(0), (2, 4, 8))
    stack = AdaLNTransformer(2, 2)
    condition = jax.random.normal(jax.random.key(2), (2, 8))
    (y, _), _ = jax.jit(stack.init_with_output)(jax.random.key(1), x, condition)
    np.testing.assert_allclose(y, x, atol=1e-6)


def test_time_embedding():
    table = time_embedding(jnp.array([0, 1, 1000]), 8)
    np.testing.assert_allclose(table[0], [0] * 4 + [1] * 4)
    # Frequencies go from 1 to 1/10000 in three equal steps of their logarithm.
    frequencies = 10000.0 ** (-np.arange(4) / 3)
    np.testing.assert_allclose(table[1, :4], np.sin(frequencies), rtol=1e-5)
    np.testing.assert_allclose(table[2, 7], np.cos(0.1), rtol=1e-5)


def test_refusals():
    x = jnp.zeros((1, 2, 8))
    with pytest.raises(UserError, match="3 attention heads"):
        jax.eval_shape(Stack((PostNormBlock(3),), 1).init, jax.random.key(0), x)
    with pytest.raises(UserError, match="remat"):
        jax.eval_shape(Stack((PostNormBlock(2),), 1, remat="some").init, jax.random.key(0), x)

"""The decoder with local attention."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maskjax.errors import UserError
from maskjax.masking import Uniform
from maskjax.models import LocalDecoder
from maskjax.models.audio_decoder import WindowAttention, log_offsets, window_order
from maskjax.tokens import TokenGrid

GRID = TokenGrid((8, 4), (2, 2), 1)
SMALL = LocalDecoder(width=16, depth=2, heads=2, dtype="float32")


def init(decoder, tokens, mask):
    return jax.jit(lambda key: decoder.init(key, tokens, GRID, mask, 4))(jax.random.key(2))


@pytest.mark.parametrize("shift", [(0, 0), (2, 0), (1, 2)])
def test_windows_hold_neighbours_only(shift):
    """Two tokens see each other iff an uncyclic window of the shifted cutting holds both."""
    shape, window = (8, 4), (4, 2)
    order, visible = window_order(shape, window, shift)
    assert sorted(order.reshape(-1)) == list(range(32))
    seen = np.zeros((32, 32), bool)
    for places, sees in zip(order, visible, strict=True):
        seen[places[:, None], places[None, :]] = sees
    row, column = np.divmod(np.arange(32), 4)
    cell = [(axis - s) // w for axis, s, w in zip((row, column), shift, window, strict=True)]
    same = [c[:, None] == c[None, :] for c in cell]
    np.testing.assert_array_equal(seen, same[0] & same[1])


def test_attention_is_the_formula():
    """Against a loop over queries, in float64."""
    shape, window, shift, heads, d = (4, 4), (2, 4), (1, 0), 2, 8
    layer = WindowAttention(heads, shape, window, shift)
    x = jax.random.normal(jax.random.key(0), (1, 16, d))
    params = jax.jit(layer.init)(jax.random.key(1), x)["params"]
    params = params | {"tau": jnp.array([0.5, 0.001])}  # the second is cut at 0.01
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    q, k, v = (
        (np.asarray(x[0], np.float64) @ p[n]["kernel"] + p[n]["bias"]).reshape(16, heads, -1)
        for n in ("query", "key", "value")
    )
    hidden = log_offsets(window) @ p["offsets_up"]["kernel"] + p["offsets_up"]["bias"]
    bias = np.maximum(hidden, 0) @ p["offsets_down"]["kernel"] + p["offsets_down"]["bias"]
    order, visible = window_order(shape, window, shift)
    y = np.zeros((16, heads, d // heads))
    for places, sees in zip(order, visible, strict=True):
        for i, query in enumerate(places):
            for h in range(heads):
                keys = [j for j in range(len(places)) if sees[i, j]]
                cosines = [
                    q[query, h]
                    @ k[places[j], h]
                    / np.linalg.norm(q[query, h])
                    / np.linalg.norm(k[places[j], h])
                    for j in keys
                ]
                logits = np.array(cosines) / (0.5, 0.01)[h] + bias[i, keys, h]
                shares = np.exp(logits - logits.max())
                y[query, h] = shares / shares.sum() @ v[places[keys], h]
    expected = y.reshape(16, d) @ p["out"]["kernel"] + p["out"]["bias"]
    actual = jax.jit(layer.apply)({"params": params}, x)[0]
    np.testing.assert_allclose(actual, expected, atol=2e-5)


def test_a_token_reaches_its_windows_only():
    """Through one pair of blocks a change spreads to the windows of both, and no further."""
    mask = Uniform(0.5)(jax.random.key(0), 1, GRID)
    tokens = jax.random.normal(jax.random.key(1), (1, 17, 8))
    params = init(SMALL, tokens, mask)
    predict = jax.jit(lambda tokens: SMALL.apply(params, tokens, GRID, mask, 4)["prediction"])
    out, other = predict(tokens), predict(tokens.at[0, 1].add(1.0))
    moved = np.asarray(jnp.abs(out - other).max(axis=-1)[0] > 1e-6).reshape(8, 4)
    row = int(mask.keep[0, 0]) // 4
    first = row // 4 * 4
    expected = np.zeros(8, bool)
    expected[first : first + 4] = True  # the plain window
    for r in np.flatnonzero(expected):  # then the shifted ones: rows 0-1, 2-5, 6-7
        expected |= (np.arange(8) + 2) // 4 == (r + 2) // 4
    np.testing.assert_array_equal(moved.all(axis=1), expected)
    np.testing.assert_array_equal(moved.any(axis=1), expected)
    # The class token has no place in a window.
    np.testing.assert_array_equal(out, predict(tokens.at[0, 0].add(1.0)))


def test_scan_and_remat_change_nothing():
    mask = Uniform(0.5)(jax.random.key(0), 2, GRID)
    tokens = jax.random.normal(jax.random.key(1), (2, 17, 8))
    deep = dataclasses.replace(SMALL, depth=4)
    params = init(deep, tokens, mask)
    scanned = dataclasses.replace(deep, scan=True, remat="dots_with_no_batch_dims")

    def outputs(params, network):
        out = network.apply(params, tokens, GRID, mask, 4)
        return out["prediction"], out["blocks"][3]

    forward = jax.jit(outputs, static_argnums=1)
    a, b = forward(params, deep), forward(params, scanned)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5, rtol=1e-5), a, b)
    assert a[1].shape == (2, 32, 16)


def test_refusals():
    mask = Uniform(0.5)(jax.random.key(0), 1, GRID)

    def check(decoder, grid=GRID):
        jax.eval_shape(
            lambda: decoder.init(jax.random.key(0), jnp.zeros((1, 17, 8)), grid, mask, 4)
        )

    with pytest.raises(UserError, match="Windows of 3x4 tokens do not divide the 8x4"):
        check(dataclasses.replace(SMALL, window=(3, 4)))
    with pytest.raises(UserError, match="two axes"):
        check(SMALL, TokenGrid((32,), (2,), 1))
    with pytest.raises(UserError, match="depth of 3 is not divisible by 2 kinds"):
        check(dataclasses.replace(SMALL, depth=3))

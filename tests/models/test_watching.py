"""Weights of attention are those by which the real module reads its values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maskjax.models import Attention, ViT
from maskjax.models.watching import unrolled, watch_attention
from maskjax.tokens import TokenGrid

GRID = TokenGrid.of((8, 8), (2, 2), 1)


@pytest.mark.parametrize("cosine", [False, True])
@pytest.mark.parametrize("restricted", [False, True])
def test_the_weights_give_what_attention_gives(cosine, restricted):
    keys = jax.random.split(jax.random.key(0), 5)
    x, context = (jax.random.normal(key, (2, n, 8)) for key, n in zip(keys, (3, 5), strict=False))
    mask = bias = None
    if restricted:
        mask = jax.random.bernoulli(keys[2], 0.6, (2, 1, 1, 5)).at[..., 0].set(True)
        bias = jax.random.normal(keys[3], (2, 3, 5))  # for every example alike
    module = Attention(heads=2, cosine=cosine)
    params = module.init(keys[4], x, context)
    with watch_attention() as seen:
        y = module.apply(params, x, context, mask, bias)
    (weights,) = seen
    assert weights.shape == (2, 2, 3, 5)
    np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-6)
    if restricted:
        assert not weights[jnp.broadcast_to(~mask, weights.shape)].any()
    p = jax.tree.map(np.asarray, params["params"])
    values = np.asarray(context) @ p["value"]["kernel"] + p["value"]["bias"]
    read = np.einsum("bhnm,bmhd->bnhd", weights, values.reshape(2, 5, 2, 4)).reshape(2, 3, 8)
    np.testing.assert_allclose(read @ p["out"]["kernel"] + p["out"]["bias"], y, atol=1e-5)


@pytest.mark.parametrize("scan", [False, True])
def test_blocks_are_watched_in_order_whether_looped_over_or_not(scan):
    network = ViT((2, 2), 16, 3, 2, scan=scan, remat="full" if scan else "none", relative_bias=True)
    patches = jax.random.normal(jax.random.key(1), (2, 16, 4))
    variables = network.init(jax.random.key(0), patches, GRID)
    offsets = variables["params"]["relative_bias"]  # zeros at first, and then without influence
    offsets = jax.tree.map(lambda x: jax.random.normal(jax.random.key(2), x.shape), offsets)
    variables = {"params": variables["params"] | {"relative_bias": offsets}}

    @jax.jit
    def see(variables, patches):
        with watch_attention() as seen:
            out = unrolled(network).apply(variables, patches, GRID)
        return seen, out

    seen, out = see(variables, patches)
    plain = network.apply(variables, patches, GRID)
    np.testing.assert_allclose(out["tokens"], plain["tokens"], atol=1e-5)
    assert [w.shape for w in seen] == [(2, 2, 17, 17)] * 3
    # Each is that of its block: of the query and key of what the block reads.
    blocks = jax.tree.map(np.asarray, variables["params"]["stack"]["blocks"])
    for i, x in enumerate([plain["input"], *plain["blocks"][:2]]):
        block = jax.tree.map(lambda leaf, i=i: leaf[i], blocks)
        x = np.asarray(x - x.mean(-1, keepdims=True))
        x = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6)
        x = x * block["norm1"]["scale"] + block["norm1"]["bias"]
        q, k = (
            (x @ block["attention"][n]["kernel"] + block["attention"][n]["bias"]).reshape(
                2, 17, 2, 8
            )
            for n in ("query", "key")
        )
        logits = np.einsum("bnhd,bmhd->bhnm", q, k) / np.sqrt(8.0)
        ratio = np.log(seen[i]) - logits  # the relative bias, up to a constant of every query
        ratio = ratio - ratio.mean(-1, keepdims=True)
        np.testing.assert_allclose(ratio[0], ratio[1], atol=1e-4)
        assert np.abs(ratio).max() > 0.1


def test_nothing_is_watched_outside():
    module, x = Attention(heads=1), jnp.ones((1, 2, 4))
    params = module.init(jax.random.key(0), x)
    with watch_attention() as seen:
        pass
    module.apply(params, x)
    assert seen == []

"""Attentive heads: their parameters, their definition, what they read."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maskjax.errors import UserError
from maskjax.models import AttentiveHead
from maskjax.paths import named_leaves

TOKENS = np.random.default_rng(0).normal(size=(6, 5, 8)).astype(np.float32)


def head_and_variables(pooling, **options):
    """With noise on what starts as zeros and ones, which would hide mistakes."""
    head = AttentiveHead(3, "seen.tokens", pooling, heads=2, **options)
    variables = jax.jit(head.init, static_argnums=2)(jax.random.key(1), outputs(TOKENS), 5)
    noise = np.random.default_rng(2)
    params = jax.tree.map(
        lambda leaf: leaf + 0.3 * noise.normal(size=leaf.shape).astype(np.float32),
        variables["params"],
    )
    return head, {**variables, "params": params}


def outputs(tokens):
    return {"seen": {"tokens": jnp.asarray(tokens)}}


def norm(x, p):
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    return x * p["scale"] + p["bias"]


def attention(p, query, keys, values, heads=2):
    """One query, head by head, in float64."""
    q, k, v = (
        (x @ p[name]["kernel"] + p[name]["bias"]).reshape(*x.shape[:-1], heads, -1)
        for name, x in (("query", query), ("key", keys), ("value", values))
    )
    logits = np.einsum("hd,bnhd->bhn", q, k) / np.sqrt(q.shape[-1])
    weights = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    return np.einsum("bhn,bnhd->bhd", weights, v).reshape(len(keys), -1)


def pooled(pooling, p, x):
    query = p["query"][0]
    if pooling == "query":
        keys, values = norm(x, p["norm_key"]), norm(x, p["norm_value"])
        y = attention(p["attention"], norm(query, p["norm_query"]), keys, values)
        return y @ p["attention"]["out"]["kernel"] + p["attention"]["out"]["bias"]
    read = norm(x, p["norm_tokens"])
    y = query + attention(p["attention"], query, read, read)
    hidden = norm(y, p["norm_mlp"]) @ p["mlp"]["up"]["kernel"] + p["mlp"]["up"]["bias"]
    hidden = np.asarray(jax.nn.gelu(hidden, approximate=False), np.float64)
    return y + hidden @ p["mlp"]["down"]["kernel"] + p["mlp"]["down"]["bias"]


@pytest.mark.parametrize("pooling", ["query", "block"])
def test_the_pooling_is_its_definition(pooling):
    head, variables = head_and_variables(pooling)
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables["params"])
    expected = pooled(pooling, params["pool"], TOKENS.astype(np.float64))
    real = np.arange(6) != 2
    out, moved = head.apply(variables, outputs(TOKENS), 5, jnp.asarray(real), mutable="batch_stats")
    still = head.apply(variables, outputs(TOKENS), 5)
    if pooling == "query":
        # In training the statistics are those of the batch, in evaluation the running ones.
        mean, variance = expected[real].mean(axis=0), expected[real].var(axis=0)
        np.testing.assert_allclose(still["features"], expected / np.sqrt(1 + 1e-5), atol=1e-5)
        np.testing.assert_allclose(moved["batch_stats"]["norm"]["mean"], 0.1 * mean, atol=1e-6)
        expected = (expected - mean) / np.sqrt(variance + 1e-5) * real[:, None]
    else:
        assert not moved
        np.testing.assert_allclose(still["features"], expected, atol=1e-5)
    np.testing.assert_allclose(out["features"], expected, atol=2e-5)
    linear = params["linear"]
    logits = expected @ linear["kernel"] + linear["bias"]
    np.testing.assert_allclose(out["logits"], logits, atol=1e-4)
    np.testing.assert_allclose(out["probabilities"], jax.nn.softmax(logits), atol=1e-4)


@pytest.mark.parametrize("pooling", ["query", "block"])
def test_what_the_heads_are_made_of(pooling):
    _, variables = head_and_variables(pooling)
    d, found = 8, {n: x.shape for n, x in named_leaves(variables["params"]).items()}
    norms = {"query": ("query", "key", "value"), "block": ("tokens", "mlp")}[pooling]
    layers = [f"attention/{name}" for name in ("query", "key", "value")]
    expected = {"linear/kernel": (d, 3), "linear/bias": (3,), "pool/query": (1, d)}
    if pooling == "query":
        layers.append("attention/out")
    else:
        expected |= {"pool/mlp/up/kernel": (d, 4 * d), "pool/mlp/up/bias": (4 * d,)}
        expected |= {"pool/mlp/down/kernel": (4 * d, d), "pool/mlp/down/bias": (d,)}
    expected |= {f"pool/{layer}/kernel": (d, d) for layer in layers}
    expected |= {f"pool/{layer}/bias": (d,) for layer in layers}
    expected |= {f"pool/norm_{name}/{leaf}": (d,) for name in norms for leaf in ("scale", "bias")}
    assert found == expected
    assert ("batch_stats" in variables) == (pooling == "query")


def test_patches_are_the_last_tokens_in_any_order_and_a_vector_is_one_of_them():
    head, variables = head_and_variables("block")
    logits = head.apply(variables, outputs(TOKENS), 5)["logits"]
    first = np.random.default_rng(3).normal(size=(6, 2, 8)).astype(np.float32)
    more = np.concatenate([first, TOKENS[:, ::-1]], axis=1)
    np.testing.assert_allclose(head.apply(variables, outputs(more), 5)["logits"], logits, atol=1e-5)
    assert np.abs(head.apply(variables, outputs(more), 7)["logits"] - logits).max() > 1e-2
    one = head.apply(variables, outputs(TOKENS[:, :1]), 1)["logits"]
    np.testing.assert_array_equal(head.apply(variables, outputs(TOKENS[:, 0]), 5)["logits"], one)


def test_refusals():
    for options, words in (
        (dict(pooling="mean"), "pooling must be one of query, block"),
        (dict(heads=3), "8 is not divisible by 3"),
        (dict(source="seen"), "neither tokens nor a vector"),
    ):
        head = AttentiveHead(3, **{"source": "seen.tokens", **options})
        with pytest.raises(UserError, match=words):
            head.init(jax.random.key(0), outputs(TOKENS), 5)

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

import torch_names
from maskjax.errors import UserError
from maskjax.models import Attention, Block, CrossBlock, Transformer
from maskjax.models.watching import watch_attention
from maskjax.parallel.flops import count_flops

X = jax.random.normal(jax.random.key(0), (3, 5, 8))
CONTEXT = jax.random.normal(jax.random.key(1), (3, 7, 6))


def drawn(module, *args, seed=2, **kwargs):
    """Returns variables of which none is as it starts."""
    variables = jax.jit(module.init)(jax.random.key(seed), *args, **kwargs)
    # Zeros (biases) and ones (scales) would hide mistakes.
    noise = np.random.default_rng(3)
    return jax.tree.map(
        lambda a: a + 0.3 * noise.normal(size=a.shape).astype(np.float32), variables
    )


def run(module, *args, seed=2, **kwargs):
    variables = drawn(module, *args, seed=seed, **kwargs)
    params = jax.tree.map(np.asarray, variables["params"])
    return jax.jit(module.apply)(variables, *args, **kwargs), params


def plain_attention(p, x, context, heads, allowed=None, added=0.0):
    """Attention head by head, as the formula has it, in float64."""

    def project(name, source):
        y = np.asarray(source, np.float64) @ np.asarray(p[name]["kernel"], np.float64)
        y = y + np.asarray(p[name].get("bias", 0.0), np.float64)
        return y.reshape(*source.shape[:2], heads, -1).transpose(0, 2, 1, 3)

    q, k, v = project("query", x), project("key", context), project("value", context)
    logits = q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1]) + added
    if allowed is not None:
        logits = np.where(allowed, logits, -np.inf)
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    y = (weights / weights.sum(-1, keepdims=True) @ v).transpose(0, 2, 1, 3)
    return y.reshape(x.shape) @ p["out"]["kernel"] + p["out"]["bias"]


@pytest.mark.parametrize("biased", ["qkv", "qv", "none"])
@pytest.mark.parametrize("context", [None, CONTEXT])
def test_attention_is_the_formula(biased, context):
    source = X if context is None else context
    allowed = np.random.default_rng(0).random((3, 1, 5, source.shape[1])) < 0.6
    allowed[..., 0] = True
    added = jax.random.normal(jax.random.key(4), (1, 2, 5, source.shape[1]))
    module = Attention(2, bias=biased)
    y, p = run(module, X, context, mask=jnp.asarray(allowed), bias=added)
    expected = plain_attention(p, X, source, 2, allowed, np.asarray(added))
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)
    have = {name for name in ("query", "key", "value") if "bias" in p[name]}
    assert (
        have == {"qkv": {"query", "key", "value"}, "qv": {"query", "value"}, "none": set()}[biased]
    )


def test_a_mask_of_two_axes_is_that_of_all_examples():
    causal = jnp.tril(jnp.ones((5, 5), bool))
    y, p = run(Attention(2), X, mask=causal)
    np.testing.assert_allclose(
        y, plain_attention(p, X, X, 2, np.asarray(causal)), rtol=1e-5, atol=1e-5
    )


def test_a_query_that_may_attend_nothing_gets_the_mean():
    nothing = jnp.ones((5, 5), bool).at[2].set(False)
    y, p = run(Attention(2), X, mask=nothing)
    values = np.asarray(X) @ p["value"]["kernel"] + p["value"]["bias"]
    expected = values.mean(axis=1) @ p["out"]["kernel"] + p["out"]["bias"]
    np.testing.assert_allclose(y[:, 2], expected, rtol=1e-5, atol=1e-5)


def test_cosine_attention_agrees_with_its_reference(golden):
    arrays = golden("videomae_v2")
    get = {k.replace("cosattn/param/", "b.attn."): v for k, v in arrays.items() if "cosattn" in k}
    get |= {f"b.{n}.{w}": np.zeros((1, 1)) for n in ("mlp.fc1", "mlp.fc2") for w in ("weight",)}
    get |= {f"b.{n}.{w}": np.zeros(1) for n in ("norm1", "norm2") for w in ("weight", "bias")}
    params = torch_names.block(get, "b")["attention"]
    module, x = Attention(2, bias="qv", cosine=True), jnp.asarray(arrays["cosattn/in"])
    y = jax.jit(module.apply)({"params": params}, x)
    np.testing.assert_allclose(y, arrays["cosattn/out"], rtol=1e-5, atol=1e-5)
    grads = jax.jit(jax.grad(lambda p: module.apply({"params": p}, x).sum()))(params)["scale"]
    expected = arrays["cosattn/grad/scale"].reshape(-1)
    np.testing.assert_allclose(grads, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    assert grads[1] == 0  # beyond the clamp


def test_cosine_attention_of_zeros_has_finite_gradients():
    module = Attention(2, cosine=True)
    variables = jax.jit(module.init)(jax.random.key(0), X)
    grads = jax.jit(jax.grad(lambda x: module.apply(variables, x).sum()))(jnp.zeros_like(X))
    assert np.isfinite(grads).all()


@pytest.mark.parametrize("residual", [True, False])
def test_cross_block(residual):
    module = CrossBlock(2, residual=residual, layer_scale=0.5, activation="gelu_tanh")
    y, p = run(module, X, CONTEXT)

    def norm(p, x):
        x = np.asarray(x, np.float64)
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
        return x * p["scale"] + p["bias"]

    a = (
        plain_attention(p["attention"], norm(p["norm1"], X), norm(p["norm_context"], CONTEXT), 2)
        * p["scale1"]["scale"]
    )
    a = a + np.asarray(X) if residual else a
    up = norm(p["norm2"], a) @ p["mlp"]["up"]["kernel"] + p["mlp"]["up"]["bias"]
    up = 0.5 * up * (1 + np.tanh(np.sqrt(2 / np.pi) * (up + 0.044715 * up**3)))
    down = up @ p["mlp"]["down"]["kernel"] + p["mlp"]["down"]["bias"]
    np.testing.assert_allclose(y, a + down * p["scale2"]["scale"], rtol=1e-5, atol=1e-5)


OPTIONS = dict(bias="qv", cosine=True, layer_scale=0.1, drop_path=0.5)


def test_scan_and_remat_change_nothing_with_every_option():
    mask = jax.random.bernoulli(jax.random.key(5), 0.7, (3, 1, 1, 5)).at[..., 0].set(True)
    bias = jax.random.normal(jax.random.key(6), (1, 2, 5, 5))
    arguments = X, mask, bias, jax.random.key(8)
    plain = Transformer(2, 2, **OPTIONS)
    params = jax.jit(plain.init)(jax.random.key(7), X)
    expected, blocks = jax.jit(plain.apply)(params, *arguments)
    for scan in (False, True):
        other = Transformer(2, 2, scan=scan, remat="full", attention_batch=1, **OPTIONS)
        y, each = jax.jit(other.apply)(params, *arguments)
        np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)
        for i in range(2):
            np.testing.assert_allclose(each[i], blocks[i], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("own", [True, False])
def test_attention_in_parts_is_that_at_once(own):
    """Masks and biases of every example or of all, with their gradients."""
    x = jax.random.normal(jax.random.key(0), (6, 5, 8))
    size = 6 if own else 1
    mask = jax.random.bernoulli(jax.random.key(5), 0.7, (size, 1, 5, 5)).at[..., 0].set(True)
    bias = jax.random.normal(jax.random.key(6), (size, 2, 5, 5))
    plain, weight = Attention(2), jax.random.normal(jax.random.key(7), x.shape)
    params = drawn(plain, x)

    def gradients(module):
        def weighted(params, x, bias):
            y = module.apply(params, x, mask=mask, bias=bias)
            return (y * weight).sum(), y

        return jax.jit(jax.grad(weighted, argnums=(0, 1, 2), has_aux=True))(params, x, bias)

    expected = gradients(plain)
    for at_once in (2, 5):  # 5 does not divide 6: three at a time
        result = gradients(Attention(2, at_once=at_once))
        for a, b in zip(jax.tree.leaves(result), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("options", [dict(project_out=False), dict(bias="qv"), dict(cosine=True)])
def test_biases_of_attention_in_parts(options):
    """They are added elsewhere, and the result is the same."""
    plain, parts = Attention(2, **options), Attention(2, at_once=1, **options)
    params = drawn(plain, X)
    weights = []
    for module in (plain, parts):
        with watch_attention() as seen:
            weights.append((module.apply(params, X), *seen))
    assert len(weights[0]) == 2
    for a, b in zip(*weights, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_attention_in_parts_is_exported_for_any_number_of_examples():
    module = Attention(2, at_once=2)
    params = jax.jit(module.init)(jax.random.key(1), X)
    shape = jax.ShapeDtypeStruct(export.symbolic_shape("b, 5, 8"), X.dtype)
    exported = export.export(jax.jit(lambda x: module.apply(params, x)))(shape)
    np.testing.assert_allclose(exported.call(X), module.apply(params, X), rtol=1e-5, atol=1e-6)


def test_every_block_sees_mask_and_bias():
    module = Transformer(2, 2)
    params, apply = jax.jit(module.init)(jax.random.key(7), X), jax.jit(module.apply)
    hidden = jnp.asarray([True, True, True, True, False])[None, None, None, :]
    changed = X.at[:, 4].add(10.0)
    _, blocks = apply(params, X, hidden)
    _, other = apply(params, changed, hidden)
    for a, b in zip(blocks, other, strict=True):
        np.testing.assert_array_equal(a[:, :4], b[:, :4])
    # A bias of minus a million says the same as a mask.
    bias = jnp.where(hidden, 0.0, -1e6)
    for a, b in zip(blocks, apply(params, X, bias=bias)[1], strict=True):
        np.testing.assert_allclose(a[:, :4], b[:, :4], rtol=1e-5, atol=1e-6)


def test_drop_path_drops_branches_per_example_and_keeps_the_mean():
    x = jnp.broadcast_to(X[:1], (2000, 5, 8))
    block = Block(2)
    params = jax.jit(block.init)(jax.random.key(0), x)
    apply = jax.jit(block.apply)
    y = apply(params, x, rng=jax.random.key(1), drop_path=0.25)
    untouched = np.isclose(y, x).all(axis=(1, 2))
    assert abs(untouched.mean() - 0.25**2) < 0.02  # both branches, drawn independently
    # Attention's branch alone, then the MLP's of it: four outcomes.
    assert len(np.unique(np.round(np.asarray(y[:, 0, 0]), 4))) == 4
    np.testing.assert_allclose(apply(params, x, drop_path=0.25), apply(params, x), rtol=1e-6)


def test_drop_path_grows_linearly_from_zero():
    x = jnp.broadcast_to(X[:1], (1000, 5, 8))
    module = Transformer(3, 2, drop_path=0.5)
    params, apply = jax.jit(module.init)(jax.random.key(0), x), jax.jit(module.apply)
    _, blocks = apply(params, x, rng=jax.random.key(1))
    before, shares = x, []
    for after in blocks:
        shares.append(np.isclose(after, before, atol=1e-6).all(axis=(1, 2)).mean())
        before = after
    np.testing.assert_allclose(shares, [0, 0.25**2, 0.5**2], atol=0.04)
    plain = jax.jit(Transformer(3, 2).apply)(params, x, rng=jax.random.key(1))[0]
    np.testing.assert_allclose(apply(params, x)[0], plain, rtol=1e-5, atol=1e-6)


def test_the_initialisation_of_beit():
    module = Transformer(4, 2, init_kernel="beit")
    params = jax.jit(module.init)(jax.random.key(0), jnp.ones((1, 5, 64)))
    blocks = params["params"]["blocks"]
    query, out = blocks["attention"]["query"]["kernel"], blocks["attention"]["out"]["kernel"]
    assert 0.019 < np.abs(query).max() <= 0.02
    for kernel in (out, blocks["mlp"]["down"]["kernel"]):
        for i in range(4):
            assert np.abs(kernel[i]).max() == pytest.approx(0.02 / np.sqrt(2 * (i + 1)), rel=0.02)


def test_torch_names_are_inverted():
    module = Transformer(2, 2, bias="qv", layer_scale=0.1, cosine=True)
    blocks = jax.jit(module.init)(jax.random.key(0), X)["params"]["blocks"]
    named = torch_names.blocks_names(blocks, "blocks.")
    assert named["blocks.1.attn.qkv.weight"].shape == (24, 8)
    back = torch_names.blocks(named, "blocks.")
    jax.tree.map(np.testing.assert_array_equal, back, jax.tree.map(np.asarray, blocks))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (dict(bias="kv"), "bias of attention must be one of qkv, qv, none"),
        (dict(activation="relu"), "activation must be one of"),
        (dict(drop_path=1.0), "drop_path must be in"),
        (dict(init_kernel="he"), "init_kernel must be one of"),
        (dict(attention_batch=0), "at least one example at a time, not 0"),
    ],
)
def test_impossible_blocks_are_refused(change, words):
    with pytest.raises(UserError, match=words):
        jax.eval_shape(Transformer(2, 2, **change).init, jax.random.key(0), X)


@pytest.mark.parametrize("last", [0, 2, 5])
@pytest.mark.parametrize(
    "options",
    [
        dict(),
        dict(depth=1),
        dict(drop_path=0.5),
        dict(remat="hidden"),
        dict(attention_batch=2),
        dict(scan=True, remat="hidden"),
    ],
)
def test_the_last_tokens_are_those_of_all(last, options):
    module = Transformer(**{"depth": 3, "heads": 2} | options)
    rng = jax.random.key(5) if "drop_path" in options else None
    variables = drawn(module, X)

    def outputs(variables, wanted):
        x, blocks = module.apply(variables, X, rng=rng, last=wanted)
        return x, blocks[module.depth - 1]

    def loss(variables, wanted):
        x = outputs(variables, wanted)[0]
        return (x[:, x.shape[1] - last :] ** 2).sum()

    x, of_all = jax.jit(outputs, static_argnums=1)(variables, last)
    assert x.shape == (3, last, 8)
    np.testing.assert_allclose(x, of_all[:, 5 - last :], rtol=1e-5, atol=1e-5)
    gradient = jax.jit(jax.grad(loss), static_argnums=1)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4),
        gradient(variables, last),
        gradient(variables, None),
    )


def test_other_tokens_cost_the_last_block_keys_and_values_alone():
    n, m, d = 5, 2, 8
    variables = drawn(Transformer(3, 2), X)

    def flops(**options):
        return count_flops(lambda x: Transformer(3, 2).apply(variables, x, **options)[0], X[:1])

    whole = 24 * n * d**2 + 4 * n**2 * d
    assert flops() == 3 * whole
    # Queries, the output and the MLP are of m tokens.
    assert flops(last=m) == 2 * whole + 4 * n * d**2 + 20 * m * d**2 + 4 * n * m * d

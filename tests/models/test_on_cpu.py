"""What is computed in another order on CPUs is the same, in values and gradients."""

import contextlib
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maskjax.models import Block
from maskjax.models.attention import heads_first
from maskjax.models.layers import gelu
from maskjax.parallel.devices import on_cpu
from maskjax.parallel.mesh import make_mesh

B, N, M, H, D = 2, 5, 7, 3, 4
KEYS = jax.random.split(jax.random.key(0), 6)
Q = 2.0 * jax.random.normal(KEYS[0], (B, N, H, D))
K = 2.0 * jax.random.normal(KEYS[1], (B, M, H, D))
V = jax.random.normal(KEYS[2], (B, M, H, D))
G = jax.random.normal(KEYS[3], (B, N, H, D))
# One query of the first example may attend nothing.
MASK = jax.random.bernoulli(KEYS[4], 0.6, (B, 1, N, M)).at[0, 0, 2].set(False)


@pytest.mark.parametrize("mask", [None, MASK], ids=["all", "mask"])
@pytest.mark.parametrize("shape", [None, (1, H, N, M), (B, 1, 1, M)])
@pytest.mark.parametrize("scale", [None, 0.3])
def test_attention_with_heads_first_is_that_of_jax(mask, shape, scale):
    bias = None if shape is None else jax.random.normal(KEYS[5], shape)

    def run(attention):
        def of(q, k, v, bias):
            return attention(q, k, v, bias=bias, mask=mask, scale=scale)

        y, pull = jax.jit(lambda *a: jax.vjp(of, *a))(Q, K, V, bias)
        return y, pull(G)

    found, expected = run(heads_first), run(jax.nn.dot_product_attention)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_of_the_size_of_the_logits_only_the_weights_are_kept():
    def kept(q, k, v):
        return jax.vjp(lambda *x: heads_first(*x, None, None, None), q, k, v)[1]

    shapes = [x.shape for x in jax.tree.leaves(jax.eval_shape(kept, Q, K, V))]
    assert shapes.count((B, H, N, M)) == 1


def test_erf_of_gelu_is_computed_again_for_the_gradient():
    x = jnp.ones((64, 128))

    def erfs(mesh):
        with mesh:
            program = jax.jit(lambda x, g: (gelu(x), jax.vjp(gelu, x)[1](g)))
            return program.lower(x, x).compile().as_text().count(" erf(")

    assert erfs(contextlib.nullcontext()) == 1
    assert erfs(jax.set_mesh(make_mesh({}, jax.devices()[:1]))) == 2


def test_bfloat16_is_rounded_where_jax_rounds():
    q, k, v = (x.astype(jnp.bfloat16) for x in (Q, K, V))
    y = heads_first(q, k, v, None, None, None)
    assert y.dtype == jnp.bfloat16
    exact = jax.nn.dot_product_attention(*(x.astype(jnp.float32) for x in (q, k, v)))
    np.testing.assert_allclose(y.astype(jnp.float32), exact, rtol=0, atol=0.02)


def test_a_block_is_the_same_with_and_without_a_mesh():
    block, x = Block(heads=H), jax.random.normal(KEYS[5], (B, N, H * D))
    params = block.init(KEYS[0], x)
    gradient = jax.value_and_grad(lambda p, x: (block.apply(p, x) ** 2).sum(), (0, 1))
    assert not on_cpu()
    plain, text = jax.jit(gradient)(params, x), str(jax.make_jaxpr(gradient)(params, x))
    with jax.set_mesh(make_mesh({}, jax.devices()[:1])):
        assert on_cpu()
        rows, changed = jax.jit(gradient)(params, x), str(jax.make_jaxpr(gradient)(params, x))
    for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(rows), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    several = f"f32[{B},{N},{4 * H * D}] = dot_general"
    assert several in text and several not in changed


def test_a_plan_for_accelerators_is_no_program_for_cpus(monkeypatch):
    mesh = SimpleNamespace(abstract_device=SimpleNamespace(platform="tpu"))
    monkeypatch.setattr(jax.sharding, "get_abstract_mesh", lambda: mesh)
    assert not on_cpu()

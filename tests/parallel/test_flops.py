"""Counted FLOPs equal the closed forms."""

import jax
import jax.numpy as jnp
import pytest

from maskjax.masking import Uniform
from maskjax.models import Block, Transformer, ViT
from maskjax.parallel.flops import count_flops
from maskjax.tokens import TokenGrid

B, N, D = 2, 16, 32
X = jax.ShapeDtypeStruct((B, N, D), jnp.float32)
# Per example: projections 8 N D^2, MLP of 4 D 16 N D^2, scores and weighted sum 4 N^2 D.
BLOCK = B * (24 * N * D**2 + 4 * N**2 * D)


def shape(*sizes):
    return jax.ShapeDtypeStruct(sizes, jnp.float32)


def test_dense():
    assert count_flops(jnp.matmul, shape(5, 7), shape(7, 11)) == 2 * 5 * 7 * 11
    batched = count_flops(
        lambda a, b: jnp.einsum("bij,bjk->bik", a, b), shape(3, 5, 7), shape(3, 7, 11)
    )
    assert batched == 3 * 2 * 5 * 7 * 11


def test_elementwise_work_is_left_out():
    assert count_flops(lambda x: jnp.exp(x).sum() + jnp.tanh(x).max(), shape(100, 100)) == 0


@pytest.mark.parametrize(
    ("groups", "batch_groups", "kernel", "expected"),
    [
        (1, 1, (3, 3, 8, 16), 2 * (2 * 6 * 6 * 16) * 3 * 3 * 8),
        (4, 1, (3, 3, 2, 16), 2 * (2 * 6 * 6 * 16) * 3 * 3 * 2),
        (8, 1, (3, 3, 1, 8), 2 * (2 * 6 * 6 * 8) * 3 * 3),  # depthwise
        (1, 2, (3, 3, 8, 16), 2 * (1 * 6 * 6 * 16) * 3 * 3 * 8),
    ],
)
def test_convolution(groups, batch_groups, kernel, expected):
    def convolve(x, k):
        return jax.lax.conv_general_dilated(
            x,
            k,
            window_strides=(1, 1),
            padding="VALID",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
            batch_group_count=batch_groups,
        )

    assert count_flops(convolve, shape(2, 8, 8, 8), shape(*kernel)) == expected


def test_patch_embedding_as_convolution_or_matmul():
    """The same arithmetic, counted the same."""
    convolution = count_flops(
        lambda x, k: jax.lax.conv_general_dilated(
            x, k, (4, 4), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        ),
        shape(B, 16, 16, 3),
        shape(4, 4, 3, D),
    )
    assert convolution == count_flops(jnp.matmul, shape(B, 16, 48), shape(48, D))


def test_block():
    block = Block(heads=4)
    params = jax.eval_shape(block.init, jax.random.key(0), X)
    assert count_flops(block.apply, params, X) == BLOCK


@pytest.mark.parametrize("scan", [False, True])
@pytest.mark.parametrize("remat", ["none", "full"])
def test_stack(scan, remat):
    """A scan counts as often as it runs; recomputation is not in the forward pass."""
    stack = Transformer(3, 4, 4.0, scan, remat, jnp.float32)
    params = jax.eval_shape(stack.init, jax.random.key(0), X)
    assert count_flops(stack.apply, params, X) == 3 * BLOCK


def test_backward_pass_is_twice_the_forward_pass():
    block = Block(heads=4)
    params = jax.eval_shape(block.init, jax.random.key(0), X)

    def gradient(params, x):
        return jax.value_and_grad(lambda p, x: block.apply(p, x).sum(), (0, 1))(params, x)

    assert count_flops(gradient, params, X) == 3 * BLOCK


def test_encoder_sees_visible_tokens_only():
    grid, mask = TokenGrid.of((32, 32), (4, 4), 3), Uniform(0.75)
    vit = ViT(patch_size=(4, 4), width=D, depth=2, heads=4)
    patches = shape(B, 64, 48)
    drawn = jax.eval_shape(lambda key: mask(key, B, grid), jax.random.key(0))
    params = jax.eval_shape(lambda p, m: vit.init(jax.random.key(0), p, grid, m), patches, drawn)
    counted = count_flops(lambda p, x, m: vit.apply(p, x, grid, m), params, patches, drawn)
    seen = 16 + 1  # a quarter of the patches, and the class token
    embed = B * 2 * 16 * 48 * D
    assert counted == embed + 2 * B * (24 * seen * D**2 + 4 * seen**2 * D)


def test_control_flow():
    a = shape(8, 8)
    once = 2 * 8**3
    assert count_flops(lambda x: jax.lax.fori_loop(0, 5, lambda i, y: y @ x, x), a) == 5 * once
    assert count_flops(lambda x: jax.jit(jnp.matmul)(x, x), a) == once
    assert count_flops(jax.vmap(lambda x: x @ x), shape(4, 8, 8)) == 4 * once
    branches = (lambda x: x @ x @ x, lambda x: x @ x)
    assert count_flops(lambda x: jax.lax.cond(x[0, 0] > 0, *branches, x), a) == 2 * once
    nested = count_flops(
        lambda x: jax.lax.scan(
            lambda y, _: (jax.lax.map(lambda z: z @ x, y[None]).sum(0), None), x, None, length=3
        )[0],
        a,
    )
    assert nested == 3 * once


def test_custom_derivatives_count_once():
    @jax.custom_vjp
    def square(x):
        return x @ x

    square.defvjp(lambda x: (x @ x, x), lambda x, g: (g @ x.T + x.T @ g,))
    assert count_flops(square, shape(8, 8)) == 2 * 8**3

    @jax.custom_jvp
    def power(x):
        return x @ x

    power.defjvp(lambda p, t: (power(*p), t[0] @ p[0] + p[0] @ t[0]))
    assert count_flops(power, shape(8, 8)) == 2 * 8**3


def test_what_no_output_depends_on_is_left_out():
    def first_block_alone(x):
        stack = Transformer(depth=3, heads=2)
        params = stack.init(jax.random.key(0), jnp.zeros((1, N, D)))
        return stack.apply(params, x)[1][0]

    assert count_flops(first_block_alone, X) == BLOCK

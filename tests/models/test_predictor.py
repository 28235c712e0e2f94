import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maskjax.models import Predictor
from maskjax.tokens import TokenGrid

GRID = TokenGrid((4, 4), (2, 2), 3)
OUTPUTS = 12
PREDICTOR = Predictor(width=8, depth=2, heads=2, mask_tokens=2, dtype="float32")


@functools.partial(jax.jit, static_argnames="kind")
def apply(variables, tokens, context, targets, *weights, kind=0):
    arguments = (tokens, context, targets, GRID, OUTPUTS, *weights)
    return PREDICTOR.apply(variables, *arguments, kind=kind)


@pytest.fixture(scope="module")
def given():
    rng = np.random.default_rng(0)
    tokens = jnp.asarray(rng.normal(size=(2, 5, OUTPUTS)), jnp.float32)
    context = jnp.array([[0, 1, 4, 5, 8], [2, 3, 6, 7, 9]])
    targets = jnp.array([[[10, 11, 14], [2, 3, 6]], [[0, 1, 4], [12, 13, 14]]])
    arguments = (tokens, context, targets)
    init = jax.jit(lambda key: PREDICTOR.init(key, *arguments, GRID, OUTPUTS)["params"])
    params = init(jax.random.key(0))
    # Different mask tokens and kernels far from zero, so that everything has influence.
    params = jax.tree.map(
        lambda x: np.asarray(x) + np.float32(rng.normal(size=x.shape) * 0.3), params
    )
    return {"params": params}, arguments


def test_shapes_and_dtypes(given):
    variables, arguments = given
    out = apply(variables, *arguments)
    assert out["prediction"].shape == (2, 2, 3, OUTPUTS)
    assert out["prediction"].dtype == jnp.float32
    assert out["tokens"].shape == (4, 8, 8)
    assert variables["params"]["mask_token"].shape == (2, 8)


def test_target_blocks_do_not_see_each_other(given):
    variables, (tokens, context, targets) = given
    both = apply(variables, tokens, context, targets)["prediction"]
    for block in range(2):
        alone = apply(variables, tokens, context, targets[:, block : block + 1])
        np.testing.assert_allclose(alone["prediction"][:, 0], both[:, block], atol=1e-5)


def test_order_of_context_and_targets_does_not_matter(given):
    variables, (tokens, context, targets) = given
    out = apply(variables, tokens, context, targets)["prediction"]
    turned = apply(variables, tokens[:, ::-1], context[:, ::-1], targets[:, :, ::-1])
    turned = turned["prediction"]
    np.testing.assert_allclose(turned[:, :, ::-1], out, atol=1e-5)
    elsewhere = apply(variables, tokens, context, targets + 1)["prediction"]
    assert np.abs(elsewhere - out).max() > 1e-3


def test_fillers_have_no_influence(given):
    variables, (tokens, context, targets) = given
    short = apply(variables, tokens[:, :3], context[:, :3], targets[:, :, :2])
    ones = jnp.ones((2, 5)).at[:, 3:].set(0), jnp.ones((2, 2, 3)).at[:, :, 2:].set(0)
    out = apply(variables, tokens, context, targets, *ones)["prediction"]
    np.testing.assert_allclose(out[:, :, :2], short["prediction"], atol=1e-5)
    whole = apply(variables, tokens, context, targets)["prediction"]
    assert np.abs(whole[:, :, :2] - short["prediction"]).max() > 1e-3


def test_kinds_have_mask_tokens_of_their_own(given):
    variables, arguments = given
    first, second = (apply(variables, *arguments, kind=i)["prediction"] for i in (0, 1))
    assert np.abs(first - second).max() > 1e-3

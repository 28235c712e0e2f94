"""LAMB: the length of its steps, layer by layer."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from maskjax.training.lamb import LAMB
from maskjax.training.optimizers import AdamW


def tree(seed):
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    return {
        "conv": {"kernel": normal(3, 3, 4), "bias": normal(4)},
        "stack": {"blocks": {"kernel": normal(2, 3, 5)}},
        "zero": {"kernel": jnp.zeros((2, 2))},
    }


def directions(optimizer, params, *gradients):
    built = optimizer.build(1)
    state = built.init(params)
    for gradient in gradients:
        direction, state = jax.jit(built.update)(gradient, state, params)
    return direction


def test_a_step_is_as_long_as_the_parameters_and_points_where_adam_does():
    params, gradients = tree(0), (tree(1), tree(2))
    options = dict(clip_norm=5.0, epsilon=1e-6)
    ours = directions(LAMB(**options), params, *gradients)
    adam = directions(AdamW(**options), params, *gradients)

    def length(x):
        return np.linalg.norm(np.asarray(x).ravel())

    kernel = params["conv"]["kernel"]
    np.testing.assert_allclose(length(ours["conv"]["kernel"]), length(kernel), rtol=1e-5)
    ratio = ours["conv"]["kernel"] / adam["conv"]["kernel"]
    np.testing.assert_allclose(ratio, np.full(ratio.shape, ratio.ravel()[0]), rtol=1e-4)
    # Not decayed: as Adam. Every block of a stack for itself. Zeros: as Adam.
    np.testing.assert_allclose(ours["conv"]["bias"], adam["conv"]["bias"], rtol=1e-6)
    np.testing.assert_allclose(ours["zero"]["kernel"], adam["zero"]["kernel"], rtol=1e-6)
    for i in range(2):
        block = params["stack"]["blocks"]["kernel"][i]
        np.testing.assert_allclose(
            length(ours["stack"]["blocks"]["kernel"][i]), length(block), rtol=1e-5
        )


def test_agrees_with_optax():
    params, gradients = {"a": {"kernel": tree(0)["conv"]["kernel"]}}, []
    for seed in (1, 2, 3):
        gradients.append({"a": {"kernel": tree(seed)["conv"]["kernel"]}})
    ours = directions(LAMB(clip_norm=None, weight_decay=0.1), params, *gradients)
    theirs = optax.chain(
        optax.scale_by_adam(0.9, 0.95, 1e-6),
        optax.add_decayed_weights(0.1),
        optax.scale_by_trust_ratio(),
    )
    state = theirs.init(params)
    for gradient in gradients:
        expected, state = theirs.update(gradient, state, params)
    np.testing.assert_allclose(ours["a"]["kernel"], expected["a"]["kernel"], rtol=1e-5)

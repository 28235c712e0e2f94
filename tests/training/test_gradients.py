"""Micro-batches, scan and remat change memory and time, not the gradient."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from gradient_checks import close

from maskjax.config import part
from maskjax.systems import build_system
from maskjax.training.gradients import loss_and_gradients
from maskjax.training.state import TrainState
from maskjax.training.step import make_train_step

BATCH = 16


def batch_of(real):
    images = np.random.default_rng(0).integers(0, 256, (BATCH, 8, 8, 1)).astype(np.uint8)
    return {"image": jnp.asarray(images), "_mask": jnp.asarray(real)}


ALL = np.ones(BATCH, bool)
# Micro-batches are strided: with these, one of 4 has 4 real examples, another has none.
UNEVEN = np.arange(BATCH) % 4 == 0
UNEVEN[1] = True
REAL = {"all": ALL, "uneven": UNEVEN}


class Setup(NamedTuple):
    """A system, and what it computes gradients of."""

    system: Any
    variables: Any
    masks: Any
    gradients: Callable  # compiled once for each number of micro-batches


@pytest.fixture(scope="module")
def setup(tiny):
    @functools.cache
    def setup(**overrides):
        config = tiny(**overrides)
        # Normalised pixels would scale up rounding where a patch is nearly constant.
        with config.unlocked():
            config.system.targets.pixels = part("targets.Pixels")
        system = build_system(config)
        variables = jax.jit(system.init)(jax.random.key(0))
        sample = jax.jit(system.sample_masks)
        masks = sample(jax.random.key(1), variables, batch_of(ALL))
        rngs = {"dropout": jax.random.key(2)}

        @functools.partial(jax.jit, static_argnums=3)
        def gradients(variables, batch, masks, accumulate):
            return loss_and_gradients(system, variables, batch, masks, rngs, accumulate)

        return Setup(system, variables, masks, gradients)

    return setup


def evaluate(parts, batch, accumulate=1):
    return parts.gradients(parts.variables, batch, parts.masks, accumulate)


@pytest.mark.parametrize("real", REAL)
@pytest.mark.parametrize("accumulate", [2, 4, 8])
def test_accumulation(setup, real, accumulate):
    parts = setup()
    loss, grads, metrics, _ = evaluate(parts, batch_of(REAL[real]))
    accumulated = evaluate(parts, batch_of(REAL[real]), accumulate)
    assert float(loss) > 0.1
    np.testing.assert_allclose(accumulated[0], loss, rtol=1e-6)
    close(accumulated[1], grads, 1e-6)
    close(accumulated[2], metrics, 1e-6)


def test_micro_batches_of_uneven_counts_are_weighted(setup):
    """A mean of the micro-batches' own means would be another gradient: the test above can fail."""
    parts = setup()
    batch = batch_of(UNEVEN)
    loss, *_ = evaluate(parts, batch)
    own = []
    for i in range(4):
        part, masks = jax.tree.map(lambda x: x[i::4], (batch, parts.masks))  # noqa: B023
        own.append(float(evaluate(parts._replace(masks=masks), part)[0]))
    assert own[2] == own[3] == 0.0
    assert abs(np.mean(own) - float(loss)) > 0.1


@pytest.mark.parametrize("accumulate", [1, 4])
def test_dropped_examples_have_no_influence(setup, accumulate):
    parts = setup()
    batch = batch_of(UNEVEN)
    other = batch | {"image": jnp.where(UNEVEN[:, None, None, None], batch["image"], 7)}
    a, b = (evaluate(parts, x, accumulate) for x in (batch, other))
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_batch_without_real_examples(setup, accumulate):
    loss, grads, metrics, _ = evaluate(setup(), batch_of(~ALL), accumulate)
    assert float(loss) == 0.0
    assert all(not np.any(np.asarray(g)) for g in jax.tree.leaves(grads))
    assert all(np.isfinite(m) for m in metrics.values())


def test_step_without_real_examples_stays_finite(setup):
    """Adam divides by the root of its second moment, which is zero then."""
    system, variables, *_ = setup()
    optimizer = optax.scale_by_adam()
    state = TrainState(
        step=jnp.int32(0),
        rng=jax.random.key_data(jax.random.key(0)),
        variables=variables,
        opt_state=optimizer.init(variables["params"]),
    )
    step = make_train_step(system, optimizer, lambda s: 1e-3, 10, 1)
    after, metrics = jax.jit(step)(state, batch_of(~ALL))
    assert bool(metrics["finite"])
    jax.tree.map(np.testing.assert_array_equal, after.variables, variables)


@pytest.mark.parametrize(
    ("scan", "remat", "accumulate"),
    [
        (True, "none", 1),
        (False, "full", 1),
        (True, "dots", 1),
        (True, "dots_with_no_batch_dims", 2),
    ],
)
def test_scan_and_remat(setup, scan, remat, accumulate):
    options = {f"system__{n}__scan": scan for n in ("encoder", "decoder")}
    options |= {f"system__{n}__remat": remat for n in ("encoder", "decoder")}
    options |= {"system__encoder__depth": 2}
    plain = setup(system__encoder__depth=2)
    other = setup(**options)
    jax.tree.map(np.testing.assert_array_equal, other.variables, plain.variables)
    loss, grads, *_ = evaluate(plain, batch_of(UNEVEN), accumulate)
    changed = evaluate(other, batch_of(UNEVEN), accumulate)
    np.testing.assert_allclose(changed[0], loss, rtol=1e-6)
    close(changed[1], grads, 2e-6)

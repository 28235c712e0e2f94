"""SGD has the course of optax's and of its definition."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from maskjax.training import SGD
from optimizer_checks import descend

START = {"kernel": jnp.array([[1.0, -2.0]]), "bias": jnp.array([0.5])}
GRADS = [
    {"kernel": jnp.array([[0.3 * i - 1.0, 2.0 - i]]), "bias": jnp.array([i * i - 3.0])}
    for i in range(5)
]


@pytest.mark.parametrize("nesterov", [True, False])
def test_agrees_with_optax_while_the_rate_changes(nesterov):
    schedule = optax.linear_schedule(0.4, 0.0, 5)
    theirs = optax.sgd(schedule, momentum=0.9, nesterov=nesterov)
    ours = SGD(nesterov=nesterov).build(5)
    expected = found = START
    states = [theirs.init(START), ours.init(START)]
    for step, gradient in enumerate(GRADS):
        update, states[0] = theirs.update(gradient, states[0], expected)
        expected = optax.apply_updates(expected, update)
        direction, states[1] = ours.update(gradient, states[1], found)
        found = {n: found[n] - schedule(step) * direction[n] for n in found}
        for name in found:
            np.testing.assert_allclose(found[name], expected[name], rtol=1e-6)


def test_decays_kernels_before_the_momentum():
    course = descend(SGD(momentum=0.5, weight_decay=0.1), START, GRADS, 0.2)
    for name, decay in (("kernel", 0.1), ("bias", 0.0)):
        value, velocity = np.asarray(START[name], np.float64), 0.0
        for gradient, params in zip(GRADS, course, strict=True):
            g = np.asarray(gradient[name], np.float64) + decay * value
            velocity = 0.5 * velocity + g
            value = value - 0.2 * (g + 0.5 * velocity)
            np.testing.assert_allclose(params[name], value, rtol=1e-5)

"""LARS agrees with the reference's updates."""

import jax.numpy as jnp
import numpy as np
import pytest

from maskjax.training import LARS
from optimizer_checks import descend


@pytest.mark.parametrize("decay", ["0.0", "0.01"])
def test_reference_updates(golden, decay):
    arrays = golden("mae_recipes")
    cfg = {k.removeprefix("cfg/lars/"): float(v) for k, v in arrays.items() if "cfg/lars" in k}
    optimizer = LARS(cfg["momentum"], cfg["trust"], weight_decay=float(decay))
    names = {"kernel": "W", "bias": "b"}
    start = {ours: jnp.asarray(arrays[f"in/lars/{theirs}0"]) for ours, theirs in names.items()}
    grads = [
        {ours: jnp.asarray(arrays[f"in/lars/g{theirs}"][i]) for ours, theirs in names.items()}
        for i in range(3)
    ]
    course = descend(optimizer, start, grads, cfg["lr"])
    for i, params in enumerate(course):
        for ours, theirs in names.items():
            expected = arrays[f"out/lars/wd{decay}/{theirs}"][i]
            np.testing.assert_allclose(params[ours], expected, rtol=1e-5, atol=1e-6)


def test_stacked_blocks_are_layers_of_their_own():
    rng = np.random.default_rng(0)
    values, grads = (jnp.asarray(rng.normal(size=(2, 3, 4)), jnp.float32) for _ in range(2))
    values = values * jnp.array([1.0, 10.0])[:, None, None]
    stacked = descend(LARS(), {"blocks": {"kernel": values}}, [{"blocks": {"kernel": grads}}], 1.0)
    for i in range(2):
        alone = descend(LARS(), {"kernel": values[i]}, [{"kernel": grads[i]}], 1.0)[0]["kernel"]
        np.testing.assert_allclose(stacked[0]["blocks"]["kernel"][i], alone, rtol=1e-6)

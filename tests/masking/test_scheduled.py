"""Masks whose counts follow a schedule and differ between examples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maskjax.errors import UserError
from maskjax.masking import Hidden, ScheduledRatio, variable_mask
from maskjax.masking.ratio_schedules import mask_ratio
from maskjax.tokens import TokenGrid

GRID = TokenGrid((4, 4), (2, 2), 3)


@pytest.mark.parametrize(
    ("name", "ours"),
    [("uniform", "linear"), ("cosine",) * 2, ("pow2.5", "pow"), ("log",) * 2, ("exp",) * 2],
)
def test_schedules_agree_with_the_reference(golden, name, ours):
    arrays = golden("maskgit")
    share = mask_ratio(ours, arrays["in/ratio"], int(arrays["cfg/schedule_total_unknown"]), 2.5)
    np.testing.assert_allclose(share, arrays[f"out/schedule_{name}"], rtol=1e-5)


def test_counts_are_exact_and_differ():
    hidden = jnp.array([0, 1, 5, 16])
    mask = variable_mask(jax.random.uniform(jax.random.key(0), (4, 16)), hidden)
    np.testing.assert_array_equal(mask.is_masked.sum(-1), hidden)
    assert mask.is_masked.dtype == bool


def test_the_highest_scores_are_hidden():
    mask = variable_mask(jnp.array([[3.0, 1.0, 2.0, 2.0]]), jnp.array([2]))
    np.testing.assert_array_equal(mask.is_masked, [[True, False, False, True]])


def test_draws_follow_the_schedule():
    draw = jax.jit(lambda key: ScheduledRatio()(key, 4096, GRID))
    mask = draw(jax.random.key(1))
    assert isinstance(mask, Hidden)
    assert mask.is_masked.sum(-1).min() >= 1
    assert mask.is_masked.sum(-1).max() == 16
    # The mean of ceil(16 cos(pi r / 2)) over r, by quadrature.
    r = (np.arange(100000) + 0.5) / 100000
    expected = np.ceil(16 * np.cos(np.pi * r / 2)).mean()
    assert mask.is_masked.sum(-1).mean() == pytest.approx(expected, abs=0.3)
    # Every place is hidden equally often, and masks differ.
    np.testing.assert_allclose(mask.is_masked.mean(0), expected / 16, atol=0.04)
    assert len(np.unique(np.asarray(mask.is_masked), axis=0)) > 2000
    assert (draw(jax.random.key(2)).is_masked != mask.is_masked).any()


def test_least_share():
    mask = ScheduledRatio(least=0.5)(jax.random.key(0), 512, GRID)
    assert mask.is_masked.sum(-1).min() == 8


def test_refusals():
    with pytest.raises(UserError, match="least share"):
        ScheduledRatio(least=1.5)
    with pytest.raises(UserError, match="cosin"):
        ScheduledRatio("cosin")
    with pytest.raises(UserError, match="two tokens"):
        ScheduledRatio().check(TokenGrid((1, 1), (4, 4), 1))

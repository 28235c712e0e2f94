"""Masks that hide a group of points and those around it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maskjax.errors import UserError
from maskjax.masking.ball import Ball, ball_mask
from maskjax.tokens import TokenGrid

GRID = TokenGrid((16,), (8,), 3)


def test_agrees_with_the_reference(golden):
    arrays = golden("point_mae")
    centres, start = (jnp.asarray(arrays[k]) for k in ("out/center", "in/block_mask_start"))
    mask = ball_mask(centres, start, 9)
    np.testing.assert_array_equal(mask.is_masked, arrays["out/block_mask"])


def test_hides_a_ball_around_a_token_of_every_example():
    places = jax.random.normal(jax.random.key(0), (64, 16, 3))
    mask = jax.jit(lambda key: Ball(0.6)(key, 64, GRID, places=places))(jax.random.key(1))
    assert mask.keep.shape == (64, 7) and mask.drop.shape == (64, 9)
    distance = np.square(places[:, :, None] - places[:, None]).sum(-1)
    for hidden, d in zip(np.asarray(mask.is_masked), distance, strict=True):
        # For some hidden token, no visible one is nearer than the farthest hidden one.
        assert any(d[i][hidden].max() < d[i][~hidden].min() for i in np.flatnonzero(hidden))
    assert len(np.unique(mask.is_masked, axis=0)) > 32


@pytest.mark.parametrize(("ratio", "what"), [(0.05, "none"), (1.0, "all")])
def test_refuses_what_leaves_nothing(ratio, what):
    with pytest.raises(UserError, match=f"masks {what} of the 16 tokens"):
        Ball(ratio).check(GRID)

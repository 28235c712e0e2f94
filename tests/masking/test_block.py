import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mask_checks import check_mask
from maskjax.errors import UserError
from maskjax.masking import Block
from maskjax.masking.block import _fill, block_map
from maskjax.tokens import TokenGrid

MASKS = 600
GRID = TokenGrid((14, 14), (16, 16), 3)


@functools.cache
def draw(count):
    return jax.jit(lambda key: Block(count=count)(key, MASKS, GRID))


@functools.cache
def many(count):
    return np.asarray(draw(count)(jax.random.key(0)).is_masked).reshape(-1, 14, 14)


@pytest.mark.parametrize("count", [75, 98])
def test_counts_are_exact(count):
    assert (many(count).sum(axis=(1, 2)) == count).all()


@pytest.mark.parametrize("count", [75, 98])
def test_places_are_hidden_as_often_as_by_the_reference(golden, count):
    """Both frequencies are means over many masks: their difference has a known spread."""
    expected = golden("beit_block_masks")[f"out/mean_mask_n{count}_1500"]
    mean = many(count).mean(axis=0)
    error = np.sqrt(expected * (1 - expected) * (1 / 1500 + 1 / MASKS))
    z = (mean - expected) / error
    assert np.abs(z).max() < 4.5
    # Neighbouring places vary together, so this is far from a sum of 196 free squares.
    assert np.sqrt((z**2).mean()) < 1.5


@pytest.mark.parametrize("count", [75, 98])
def test_neighbours_agree_as_often_as_in_the_reference(golden, count):
    expected = golden("beit_block_masks")[f"out/neighbour_agreement_n{count}"]
    masks = many(count)
    vertical = (masks[:, 1:] == masks[:, :-1]).mean()
    horizontal = (masks[:, :, 1:] == masks[:, :, :-1]).mean()
    np.testing.assert_allclose([vertical, horizontal], expected, atol=0.006)


def test_shapes_vary_as_in_the_reference(golden):
    """Row and column extents of single masks, which the mean mask does not tell."""
    expected = golden("beit_block_masks")["out/masks_n75_seed0"].reshape(-1, 14, 14)
    ours = many(75)
    for axis in (1, 2):
        spread = [(masks.sum(axis=axis) > 0).sum(axis=1) for masks in (expected, ours)]
        error = spread[0].std() / np.sqrt(len(expected))
        assert abs(spread[0].mean() - spread[1].mean()) < 4 * error


def test_masks_are_valid_and_repeat_with_a_key():
    masks = [draw(75)(jax.random.key(seed)) for seed in (0, 1, 0)]
    check_mask(masks[0], 196 - 75, 196, ascending=True)
    assert len(np.unique(masks[0].is_masked, axis=0)) == MASKS
    assert (masks[0].is_masked != masks[1].is_masked).any()
    np.testing.assert_array_equal(masks[0].restore, masks[2].restore)


def test_a_ratio_is_rounded_down():
    assert Block(0.4)._hidden(GRID) == 78


def test_what_lacks_is_filled_beside_the_mask():
    hidden = jnp.zeros((4, 4), bool).at[1, 1].set(True)
    filled = _fill(jax.random.key(0), hidden, 5)
    np.testing.assert_array_equal(
        filled, np.array([[0, 1, 0, 0], [1, 1, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0]], bool)
    )
    np.testing.assert_array_equal(_fill(jax.random.key(1), hidden, 1), hidden)


def test_blocks_that_never_fit_are_replaced():
    """Blocks as long as the grid are refused by the algorithm; the count is exact all the same."""
    hidden = block_map(jax.random.key(0), (2, 2), 2, min_block=4, max_block=4, min_aspect=1.0)
    assert hidden.sum() == 2


@pytest.mark.parametrize(
    ("sampler", "message"),
    [
        (Block(count=196), "count=196 masks all"),
        (Block(0.0), "ratio=0.0 masks none"),
        (Block(0.05), "min_block=16 must be positive and at most 9"),
        (Block(0.95, min_block=180), "does not fit into 14x14"),
        (Block(min_aspect=2.0), "min_aspect"),
    ],
)
def test_refusals(sampler, message):
    with pytest.raises(UserError, match=message):
        sampler.check(GRID)
    with pytest.raises(UserError, match="two axes"):
        sampler.check(TokenGrid((196,), (16,), 1))

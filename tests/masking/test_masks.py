import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maskjax.errors import UserError
from maskjax.masking import Mask, Uniform, mask_from_indices, mask_from_scores, num_kept
from maskjax.tokens import TokenGrid

GRID = TokenGrid((4, 6), (2, 2), 3)
BATCH = 16


def check_invariants(mask: Mask, keep: int, tokens: int):
    order = np.concatenate([mask.keep, mask.drop], axis=1)
    assert mask.keep.shape[1] == keep
    np.testing.assert_array_equal(
        np.sort(order, axis=1), np.broadcast_to(np.arange(tokens), order.shape)
    )
    np.testing.assert_array_equal(
        np.take_along_axis(order, np.asarray(mask.restore), 1), np.sort(order, 1)
    )
    np.testing.assert_array_equal(mask.is_masked.sum(axis=1), tokens - keep)
    assert not np.take_along_axis(np.asarray(mask.is_masked), np.asarray(mask.keep), 1).any()


@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.75, 0.9])
def test_uniform_masks_are_permutations_with_exact_counts(ratio):
    mask = Uniform(ratio)(jax.random.key(0), BATCH, GRID)
    check_invariants(mask, int(24 * (1 - ratio) + 1e-9), 24)


def test_masks_differ_between_examples_and_keys_and_repeat_with_a_key():
    sample = jax.jit(lambda key: Uniform()(key, BATCH, GRID))
    masks = [sample(jax.random.key(seed)) for seed in (0, 1, 0)]
    assert len(np.unique(np.asarray(masks[0].keep), axis=0)) == BATCH
    assert (masks[0].keep != masks[1].keep).any()
    np.testing.assert_array_equal(masks[0].restore, masks[2].restore)


def test_every_token_is_kept_equally_often():
    mask = Uniform(0.75)(jax.random.key(3), 8192, GRID)
    share = 1 - np.asarray(mask.is_masked).mean(axis=0)
    np.testing.assert_allclose(share, 0.25, atol=4 * np.sqrt(0.25 * 0.75 / 8192))


def test_scores_decide_and_ties_go_to_the_first():
    mask = mask_from_scores(jnp.array([[0.3, 0.1, 0.1, 0.0]]), 2)
    np.testing.assert_array_equal(mask.keep, [[3, 1]])
    np.testing.assert_array_equal(mask.drop, [[2, 0]])


def test_a_mask_can_be_replayed_from_its_indices():
    drawn = Uniform()(jax.random.key(0), BATCH, GRID)
    again = mask_from_indices(drawn.keep, GRID.num_tokens)
    check_invariants(again, 6, 24)
    np.testing.assert_array_equal(again.keep, drawn.keep)
    np.testing.assert_array_equal(again.is_masked, drawn.is_masked)


def test_number_kept_is_that_of_the_reference():
    assert [num_kept(n, r) for n, r in ((196, 0.75), (256, 0.75), (10, 0.9))] == [49, 64, 1]


@pytest.mark.parametrize(
    ("ratio", "word"), [(0.0, "none"), (1.0, "all"), (0.99, "all"), (-1, "none")]
)
def test_ratios_that_leave_nothing_are_refused(ratio, word):
    with pytest.raises(UserError, match=f"masks {word}"):
        Uniform(ratio).check(GRID)

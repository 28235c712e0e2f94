"""What holds for every mask."""

import jax
import numpy as np


def check_mask(mask, keep, tokens, ascending=False):
    """Keep and drop make a permutation that restore inverts; counts are exact."""
    order = np.concatenate([mask.keep, mask.drop], axis=1)
    assert mask.keep.shape[1] == keep
    assert order.dtype == mask.restore.dtype == np.int32
    everything = np.broadcast_to(np.arange(tokens), order.shape)
    np.testing.assert_array_equal(np.sort(order, axis=1), everything)
    np.testing.assert_array_equal(
        np.take_along_axis(order, np.asarray(mask.restore), 1), everything
    )
    np.testing.assert_array_equal(mask.is_masked.sum(axis=1), tokens - keep)
    if ascending:
        assert (np.diff(mask.keep, axis=1) > 0).all()
        assert (np.diff(mask.drop, axis=1) > 0).all()


def check_sampler(sampler, grid, keep, batch=16, ascending=True, distinct=None):
    """Masks of a batch are valid, differ between examples and keys, and repeat with a key."""
    sampler.check(grid)
    draw = jax.jit(lambda key: sampler(key, batch, grid))
    masks = [draw(jax.random.key(seed)) for seed in (0, 1, 0)]
    check_mask(masks[0], keep, grid.num_tokens, ascending)
    assert len(np.unique(np.asarray(masks[0].is_masked), axis=0)) >= (distinct or batch)
    assert (masks[0].is_masked != masks[1].is_masked).any()
    np.testing.assert_array_equal(masks[0].restore, masks[2].restore)
    return np.asarray(masks[0].is_masked)

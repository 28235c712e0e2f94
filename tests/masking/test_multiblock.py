import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maskjax.errors import UserError
from maskjax.masking import MultiBlock
from maskjax.masking.multiblock import (
    block_size,
    list_tokens,
    rectangles,
    truncate_to_shortest,
    without_targets,
)
from maskjax.tokens import TokenGrid

PUBLISHED = MultiBlock(to_shortest=True)
GRID = TokenGrid((14, 14), (16, 16), 3)


def valid(indices, weights):
    """Lists without what only fills them; all of one length."""
    weights = np.asarray(weights).astype(bool)
    assert (np.diff(weights.astype(int), axis=-1) <= 0).all()  # ones come first
    lengths = weights.sum(axis=-1)
    assert (lengths == lengths.flat[0]).all()
    return np.asarray(indices)[weights].reshape(*weights.shape[:-1], -1)


@pytest.mark.parametrize(
    ("run", "side"), [(f"mask14/{i}", 14) for i in range(6)] + [("mask8/0", 8)]
)
def test_masks_are_rebuilt_from_the_draws_of_the_reference(golden, run, side):
    arrays = golden("ijepa")
    name, i = run.split("/")
    grid = TokenGrid((side, side), (4, 4), 3)
    boxes = jnp.asarray(arrays[f"{name}/in/blocks/{i}"])
    # Sizes come from the two numbers.
    u = arrays[f"{name}/in/u_pred_enc/{i}"]
    largest = PUBLISHED._largest(grid.shape)
    target_size = block_size(u[0], grid.shape, (0.15, 0.2), (0.75, 1.5), largest)
    context_size = block_size(u[1], grid.shape, (0.85, 1.0), (1.0, 1.0), largest)
    np.testing.assert_array_equal(
        boxes[:, :4, 2:4], np.broadcast_to(target_size, (len(boxes), 4, 2))
    )
    np.testing.assert_array_equal(boxes[:, 4, 2:4], np.broadcast_to(context_size, (len(boxes), 2)))
    # Token lists come from the places.
    maps = rectangles(boxes[..., :4], grid.shape)
    targets = maps[:, :4]
    attempts = boxes[:, 4, 4]  # the last one was successful
    context = without_targets(maps[:, 4], targets, (attempts - 1) // PUBLISHED.tries)
    masks = PUBLISHED.assemble(context, targets, grid)
    np.testing.assert_array_equal(
        valid(masks.context, masks.context_weight), arrays[f"{name}/out/masks_enc/{i}"][0]
    )
    np.testing.assert_array_equal(
        valid(masks.targets, masks.target_weight).transpose(1, 0, 2),
        arrays[f"{name}/out/masks_pred/{i}"],
    )


@functools.cache
def drawing(sampler):
    sampler.check(GRID)
    return jax.jit(lambda key: sampler(key, 16, GRID))


@functools.cache
def drawn(sampler, seed=0):
    return drawing(sampler)(jax.random.key(seed))


def listed(indices, weights):
    """bool [..., N] of the tokens that are meant."""
    indices, weights = np.asarray(indices), np.asarray(weights) > 0
    maps = np.zeros((*indices.shape[:-1], 196), bool)
    np.put_along_axis(maps, indices, weights, axis=-1)
    return maps


@pytest.mark.parametrize("inclusive", [False, True])
def test_contexts_and_targets(inclusive):
    sampler = MultiBlock(inclusive=inclusive)
    masks = drawn(sampler)
    k, m = sampler.lengths(GRID)
    assert masks.context.shape == masks.context_weight.shape == (16, k)
    assert masks.targets.shape == masks.target_weight.shape == (16, 4, m)
    context = listed(masks.context, masks.context_weight)
    targets = listed(masks.targets, masks.target_weight)
    assert not (context & targets.any(axis=1)).any()
    assert (context.sum(axis=1) > 10).all()
    # Targets are rectangles of one size.
    sides = [targets.reshape(-1, 14, 14).any(axis=axis).sum(axis=1) for axis in (2, 1)]
    assert len(set(zip(*map(np.ndarray.tolist, sides), strict=True))) == 1
    assert (sides[0] * sides[1] == targets.reshape(-1, 196).sum(axis=1)).all()
    assert 29 * 0.85 <= targets[0, 0].sum() <= 39 * 1.15
    # Indices never repeat, fillers included.
    assert all(len(set(row)) == k for row in np.asarray(masks.context).tolist())
    assert len(np.unique(context, axis=0)) == 16
    last = (context | targets.any(axis=1)).reshape(-1, 14, 14)
    assert last[:, -1].any() == last[:, :, -1].any() == inclusive


def test_draws_repeat_with_a_key_and_sizes_vary_between_keys():
    again, other = drawing(MultiBlock())(jax.random.key(0)), drawn(MultiBlock(), seed=1)
    np.testing.assert_array_equal(again.context, drawn(MultiBlock()).context)
    assert (other.targets != again.targets).any()


def test_budgets_cut_the_end_or_a_random_choice():
    generator = np.random.default_rng(0)
    whole = generator.random((16, 196)) < generator.uniform(0.1, 0.5, (16, 1))
    noises = {"raster": None, "random": jnp.asarray(generator.random((16, 196)), jnp.float32)}
    ends = {}
    for trim, noise in noises.items():
        indices, weights = map(np.asarray, list_tokens(jnp.asarray(whole), 40, noise))
        assert indices.shape == (16, 40)
        context = listed(indices, weights)
        assert (context <= whole).all()
        np.testing.assert_array_equal(context.sum(axis=1), np.minimum(whole.sum(axis=1), 40))
        assert (np.diff(indices, axis=1)[weights[:, 1:] > 0] > 0).all()
        ends[trim] = (indices * weights).max(axis=1).mean()
    assert ends["raster"] < 150 < 180 < ends["random"]
    assert MultiBlock(budget=40).lengths(GRID)[0] == 40 < MultiBlock().lengths(GRID)[0]


def test_truncation_to_the_shortest():
    inside = jnp.array([[0, 1, 1, 0, 1], [1, 0, 0, 0, 1]], bool)
    indices, weights = list_tokens(inside, 4)
    np.testing.assert_array_equal(weights, [[1, 1, 1, 0], [1, 1, 0, 0]])
    np.testing.assert_array_equal(indices, [[1, 2, 4, 0], [0, 4, 1, 2]])
    np.testing.assert_array_equal(truncate_to_shortest(weights), [[1, 1, 0, 0]] * 2)


def test_a_context_that_is_used_up_may_overlap_the_last_targets():
    """Four large targets cover almost everything: some are dropped, the first of them last."""
    sampler = MultiBlock(
        target_scale=(0.7, 0.7), target_aspect=(1.0, 1.0), context_scale=(0.3, 0.3), tries=2
    )
    masks = drawn(sampler)
    context = listed(masks.context, masks.context_weight)
    targets = listed(masks.targets, masks.target_weight)
    overlap = (context[:, None] & targets).any(axis=2)
    assert (context.sum(axis=1) > 10).all()
    assert overlap.any()
    # If a target overlaps the context, so may those behind it; those before it do not.
    dropped = 4 - overlap.argmax(axis=1)[overlap.any(axis=1)]
    assert dropped.min() >= 1


@pytest.mark.parametrize(
    ("sampler", "message"),
    [
        (MultiBlock(min_keep=30), "smallest target block has 30 of 196 tokens"),
        (MultiBlock(trim="middle"), "'raster' or 'random', not 'middle'"),
        (MultiBlock(target_scale=(0.2, 0.1)), "target_scale=\\(0.2, 0.1\\) is no range"),
        (MultiBlock(context_scale=(0.85, 1.5)), "context_scale"),
        (MultiBlock(budget=0), "budget must be positive"),
        (MultiBlock(targets=0), "at least 1"),
    ],
)
def test_refusals(sampler, message):
    with pytest.raises(UserError, match=message):
        sampler.check(GRID)
    with pytest.raises(UserError, match="two axes"):
        sampler.check(TokenGrid((196,), (16,), 1))

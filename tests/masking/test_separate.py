"""Tests of masks of several modalities, and of one draw for a whole batch."""

import jax
import numpy as np
import pytest

from maskjax.errors import UserError
from maskjax.masking import Separate, Uniform, join_masks
from maskjax.tokens import TokenGrid

GRIDS = {"image": TokenGrid((4, 4), (2, 2), 3), "text": TokenGrid((10,), (1,), 1)}
SAMPLER = Separate({"text": Uniform(0.5), "image": Uniform(0.75)})


def test_the_joint_mask_is_that_of_the_modalities():
    keys = jax.random.split(jax.random.key(0))
    masks = {n: SAMPLER.samplers[n](k, 6, g) for (n, g), k in zip(GRIDS.items(), keys, strict=True)}
    joint = join_masks(masks)
    np.testing.assert_array_equal(joint.keep[:, :4], masks["image"].keep)
    np.testing.assert_array_equal(joint.keep[:, 4:], masks["text"].keep + 16)
    np.testing.assert_array_equal(joint.is_masked[:, :16], masks["image"].is_masked)
    np.testing.assert_array_equal(joint.is_masked[:, 16:], masks["text"].is_masked)
    order = np.concatenate([joint.keep, joint.drop], axis=1)
    places = np.take_along_axis(order, np.asarray(joint.restore), 1)
    np.testing.assert_array_equal(places, np.tile(np.arange(26), (6, 1)))


def test_counts_are_exact_and_draws_differ():
    mask = SAMPLER(jax.random.key(1), 8, GRIDS)
    assert mask.joint.keep.shape == (8, 9)
    for name, count in (("image", 12), ("text", 5)):
        hidden = np.asarray(mask.modalities[name].is_masked)
        np.testing.assert_array_equal(hidden.sum(axis=1), count)
        assert len(np.unique(hidden, axis=0)) > 1


def test_a_modality_is_drawn_alike_whether_the_other_is_there_or_not():
    both = SAMPLER(jax.random.key(2), 3, GRIDS)
    alone = SAMPLER(jax.random.key(2), 3, {"text": GRIDS["text"]})
    np.testing.assert_array_equal(
        both.modalities["text"].is_masked, alone.modalities["text"].is_masked
    )
    assert alone.joint.keep.shape == (3, 5)


def test_one_draw_for_the_whole_batch():
    mask = Uniform(0.75, shared=True)(jax.random.key(0), 16, GRIDS["image"])
    assert mask.keep.shape == (16, 4) and mask.drop.shape == (16, 12)
    for part in (mask.keep, mask.drop, mask.restore):
        np.testing.assert_array_equal(part, np.tile(part[:1], (16, 1)))
    others = Uniform(0.75, shared=True)(jax.random.key(1), 16, GRIDS["image"])
    assert (np.asarray(mask.keep) != np.asarray(others.keep)).any()
    apart = Uniform(0.75)(jax.random.key(0), 16, GRIDS["image"])
    assert len(np.unique(apart.restore, axis=0)) == 16


def test_names_that_do_not_fit():
    with pytest.raises(UserError, match="unknown modality 'txt'; did you mean 'text'"):
        Separate({"txt": Uniform()}).check(GRIDS)
    with pytest.raises(UserError, match="no sampler for the modality 'text'"):
        Separate({"image": Uniform()}).check(GRIDS)
    with pytest.raises(UserError, match="masks all of the 10 tokens"):
        Separate({"image": Uniform(), "text": Uniform(0.95)}).check(GRIDS)

"""Mixup and cutmix: which pixels come from whom, and how much of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maskjax.data import Mixing
from maskjax.errors import UserError

# Image i is i everywhere, so that a pixel says whose it is.
IMAGES = jnp.broadcast_to(jnp.arange(4.0)[:, None, None, None], (4, 16, 12, 3))


def draw(mixing, seeds=200, real=None):
    mix = jax.jit(jax.vmap(lambda seed: mixing(jax.random.key(seed), IMAGES, real)))
    return jax.device_get(mix(jnp.arange(seeds)))


def test_mixup_is_the_weighted_sum():
    images, share = draw(Mixing(cutmix=0.0))
    expected = share * np.arange(4) + (1 - share) * np.arange(4)[::-1]
    np.testing.assert_allclose(
        images, np.broadcast_to(expected[..., None, None, None], images.shape), atol=1e-5
    )
    assert (share == share[:, :1]).all()
    # Beta(0.8, 0.8): mean 1/2, variance 1 / (4 (2 a + 1)).
    assert abs(share.mean() - 0.5) < 0.07
    assert abs(share[:, 0].var() - 1 / 10.4) < 0.025


def test_cutmix_pastes_one_rectangle_and_counts_its_pixels():
    images, share = draw(Mixing(mixup=0.0))
    pasted = images[:, 0, :, :, 0] == 3  # of the partner of image 0
    np.testing.assert_allclose(share[:, 0], 1 - pasted.mean(axis=(1, 2)), atol=1e-6)
    assert set(np.unique(images[:, 0])) <= {0.0, 3.0}
    for image, mask in zip(images, pasted, strict=True):
        rows, columns = mask.any(axis=1), mask.any(axis=0)
        np.testing.assert_array_equal(mask, rows[:, None] & columns[None, :])
        for line in (rows, columns):
            assert np.abs(np.diff(line.astype(int))).sum() <= 2  # in one piece
        np.testing.assert_array_equal(image[1, ..., 0] == 2, mask)  # the same for all
    assert pasted.mean(axis=0).min() > 0.05  # everywhere
    assert len(np.unique(share[:, 0])) > 30


def test_both_take_turns():
    images, _ = draw(Mixing(mixup=1e6))  # mixup of equal halves: 1.5 everywhere
    cut = (images[:, 0, 0, 0, 0] == 0) | (images[:, 0, 0, 0, 0] == 3)
    assert 0.4 < cut.mean() < 0.6


def test_a_batch_may_stay_as_it_is():
    images, share = draw(Mixing(probability=0.5))
    alone = share[:, 0] == 1
    assert 0.4 < alone.mean() < 0.65
    np.testing.assert_array_equal(images[alone], np.broadcast_to(IMAGES, images[alone].shape))


def test_who_has_no_partner_stays_alone():
    images, share = draw(Mixing(), 20, real=jnp.array([True, True, True, False]))
    np.testing.assert_array_equal(images[:, 0], np.zeros_like(images[:, 0]))
    np.testing.assert_array_equal(share[:, [0, 3]], 1.0)
    assert (share[:, 1] < 1).any()


@pytest.mark.parametrize("given", [dict(mixup=-1.0), dict(mixup=0.0, cutmix=0.0), dict(switch=2.0)])
def test_values_without_meaning(given):
    with pytest.raises(UserError):
        Mixing(**given)


def test_clips_are_mixed_as_their_frames_and_sounds_without_a_rectangle():
    clips = jnp.broadcast_to(IMAGES[:, None], (4, 5, 16, 12, 3))
    for seed in range(6):
        for mixing in (Mixing(), Mixing(mixup=0.0), Mixing(cutmix=0.0)):
            images, share = mixing(jax.random.key(seed), IMAGES)
            mixed, same = mixing(jax.random.key(seed), clips)
            np.testing.assert_array_equal(mixed, jnp.broadcast_to(images[:, None], clips.shape))
            np.testing.assert_array_equal(share, same)
    sounds = jnp.broadcast_to(jnp.arange(4.0)[:, None], (4, 10))
    mixed, share = Mixing(cutmix=0.0)(jax.random.key(0), sounds)
    expected = share * jnp.arange(4) + (1 - share) * jnp.arange(4)[::-1]
    np.testing.assert_allclose(mixed, jnp.broadcast_to(expected[:, None], (4, 10)), rtol=1e-6)

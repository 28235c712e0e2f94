"""Random erasing: how often, how large, what of."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maskjax.data import Erase, Image
from maskjax.errors import UserError


def draw(erase, n=600, shape=(24, 32, 3)):
    return jax.device_get(jax.jit(erase)(jax.random.key(0), jnp.zeros((n, *shape))))


def test_rectangles_have_the_published_distribution():
    erased, noise = draw(Erase(probability=1.0))
    share = erased.mean(axis=(1, 2))
    assert share.min() > 0.015 and share.max() < 0.36
    assert abs(share.mean() - 0.17) < 0.03
    for mask in erased[:100]:
        rows, columns = mask.any(axis=1), mask.any(axis=0)
        np.testing.assert_array_equal(mask, rows[:, None] & columns[None, :])
    heights, widths = erased.any(axis=2).sum(axis=1), erased.any(axis=1).sum(axis=1)
    ratio = np.log(heights / widths)
    assert -1.5 < ratio.min() < -0.8 and 0.8 < ratio.max() < 1.5
    assert heights.max() < 24 and widths.max() < 32  # never from border to border
    assert erased.any(axis=0).all()  # the corners too
    assert abs(noise.mean()) < 0.01 and abs(noise.std() - 1) < 0.01
    assert len(np.unique(noise[:, 0, 0, 0])) == len(noise)


def test_some_images_stay_whole():
    erased, _ = draw(Erase(probability=0.25))
    assert 0.18 < erased.any(axis=(1, 2)).mean() < 0.32


def test_an_image_that_nothing_fits_stays_whole():
    erased, _ = draw(Erase(1.0, area=(1.0, 1.0), ratio=1.0), shape=(8, 8, 1))
    assert not erased.any()


def test_the_model_sees_unit_noise_and_the_rest_as_it_was():
    data = Image((16, 16), 3, erase=Erase(probability=1.0))
    images = jnp.full((64, 16, 16, 3), 100, jnp.uint8)
    plain = np.asarray(data.normalise(images))
    view = np.asarray(
        jax.jit(lambda x: data.normalise(data.on_device(jax.random.key(1), x)))(images)
    )
    changed = np.abs(view - plain).max(axis=-1) > 1e-4
    assert 0.1 < changed.mean() < 0.25
    np.testing.assert_allclose(view[~changed], plain[~changed], atol=1e-5)
    noise = view[changed]
    assert np.abs(noise.mean(axis=0)).max() < 0.08 and np.abs(noise.std(axis=0) - 1).max() < 0.08


@pytest.mark.parametrize("given", [dict(probability=2.0), dict(area=(0.0, 0.1)), dict(ratio=0.0)])
def test_values_without_meaning(given):
    with pytest.raises(UserError):
        Erase(**given)

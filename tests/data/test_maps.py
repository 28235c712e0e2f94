"""Tests of depth and class maps as inputs."""

import jax
import numpy as np
import pytest

from maskjax import config
from maskjax.data import Augment, ClassMap, Depth, Image
from maskjax.errors import UserError

RNG = np.random.default_rng(0)


def test_depth_is_read_in_any_unit_and_shape():
    depth = Depth((4, 6))
    value = RNG.integers(0, 60000, (4, 6)).astype(np.uint16)
    np.testing.assert_array_equal(depth.read(value, None), value[..., None].astype(np.float32))
    larger = np.full((8, 28, 1), 2.5)
    larger[:, :4] = larger[:, 24:] = 9.0  # outside the centre, and of what it is resized with
    np.testing.assert_allclose(depth.read(larger, None), np.full((4, 6, 1), 2.5), rtol=1e-5)
    assert Depth((4, 4), decode_size=(8, 8)).read(value, RNG).shape == (8, 8, 1)
    with pytest.raises(ValueError, match=r"\[h, w\]"):
        depth.read(np.zeros((4, 6, 3)), None)


def test_standardised_depth_does_not_depend_on_unit_or_extremes():
    values = RNG.normal(size=(2, 10, 10, 1)).astype(np.float32)
    seen = np.asarray(Depth((10, 10)).normalise(values))
    np.testing.assert_allclose(Depth((10, 10)).normalise(5 * values + 3), seen, atol=1e-4)
    middle = np.sort(seen.reshape(2, -1))[:, 10:90]
    np.testing.assert_allclose(middle.mean(axis=1), 0, atol=1e-5)
    np.testing.assert_allclose(middle.std(axis=1, ddof=1), 1, atol=1e-5)
    far = values.copy()
    far.reshape(2, -1)[np.arange(2), values.reshape(2, -1).argmax(axis=1)] = 1e4
    changed = np.asarray(Depth((10, 10)).normalise(far))
    np.testing.assert_allclose(
        np.sort(changed.reshape(2, -1))[:, :99], np.sort(seen.reshape(2, -1))[:, :99], atol=1e-5
    )


def test_classes_stay_whole_numbers():
    labels = RNG.integers(0, 7, (8, 8))
    read = ClassMap((4, 4), classes=7).read(labels, None)
    assert read.dtype == np.int32 and read.shape == (4, 4, 1)
    assert all(
        read[i, j, 0] in labels[2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
        for i in range(4)
        for j in range(4)
    )
    with pytest.raises(UserError, match="classes from 0 to 6, but the input has 5"):
        ClassMap((4, 4), classes=5).read(labels, None)
    colours = ClassMap((4, 4), classes=7).denormalise(read[None].astype(np.float32))
    assert colours.shape == (1, 4, 4, 3) and 0 <= colours.min() <= colours.max() <= 1
    assert len(np.unique(np.asarray(colours).reshape(-1, 3), axis=0)) == len(np.unique(read))


@pytest.mark.parametrize(
    "augment",
    [
        Augment(crop="shift", shift=2, flip=True),
        Augment(crop="resized", scale=(0.3, 0.6), flip=True),
    ],
)
def test_maps_are_cropped_as_their_image_is(augment):
    # The image shows the number of the row of its pixels, and so do the maps.
    rows = np.tile(np.arange(16)[None, :, None, None], (6, 1, 16, 1)) * 8
    key = jax.random.key(3)
    options = dict(size=(16, 16), augment=augment)
    image = Image(channels=1, mean=(0.0,), std=(1.0,), **options)
    seen = np.asarray(image.on_device(key, rows.astype(np.uint8)))
    depth = np.asarray(Depth(**options).on_device(key, rows.astype(np.float32)))
    classes = np.asarray(ClassMap(classes=128, **options).on_device(key, rows.astype(np.int32)))
    assert (seen != rows).any()
    np.testing.assert_allclose(np.clip(depth, 0, 255), seen, atol=1e-3)
    assert classes.dtype == np.int32 and set(np.unique(classes)) <= set(np.unique(rows))
    assert np.abs(classes - seen).max() <= 8.01  # the nearest row


def test_arguments():
    with pytest.raises(UserError, match="two positive integers"):
        Depth((4,))
    with pytest.raises(UserError, match="augmented on the device"):
        ClassMap(augment=Augment(place="host", flip=True))
    with pytest.raises(UserError, match=r"\[B, H, W, 1\] here, not \(2, 4, 4\)"):
        Depth((4, 4)).accept(np.zeros((2, 4, 4)))
    section = config.part("data.ClassMap", size=(4, 4), classes=9)
    assert config.build(section) == ClassMap((4, 4), classes=9)
    assert Depth((2, 2)).raw(np.ones((3, 2, 2, 1))).shape == (3, 4)

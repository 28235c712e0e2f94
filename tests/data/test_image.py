"""Tests of maskjax.data.image."""

import jax
import numpy as np
import pytest

from maskjax.data import Image, decode
from maskjax.errors import UserError

SPEC = Image((4, 6), 3, (0.5, 0.25, 0.0), (0.5, 0.25, 2.0))


def test_normalise_by_hand():
    pixel = np.array([[[255, 0, 51]]], np.uint8)
    normalised = SPEC.normalise(pixel)
    assert normalised.dtype == np.float32
    np.testing.assert_allclose(normalised, [[[1.0, -1.0, 0.1]]], rtol=1e-6)


def test_denormalise_inverts_and_does_not_clip():
    images = np.arange(72, dtype=np.uint8).reshape(1, 4, 6, 3)
    back = jax.jit(lambda x: SPEC.denormalise(SPEC.normalise(x)))(images)
    np.testing.assert_allclose(back, images / 255, atol=1e-6)
    assert SPEC.denormalise(np.full((1, 1, 3), 3.0)).max() > 1


def test_floats_are_in_255():
    images = np.random.default_rng(0).integers(0, 256, (2, 4, 6, 3)).astype(np.uint8)
    np.testing.assert_array_equal(SPEC.normalise(images), SPEC.normalise(images.astype(np.float32)))


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            ((4, 4), 3, (0.5,), (1.0,) * 3),
            "mean of the images has 1 values but they have 3",
        ),
        (((4, 4), 1, (0.5,), (1.0,) * 3), "std of the images has 3 values"),
        (((4, 4), 1, (0.5,), (0.0,)), "std of the images is"),
        (((4,), 1, (0.5,), (1.0,)), "size of the images is"),
        (((4, 0), 1, (0.5,), (1.0,)), "size of the images is"),
    ],
)
def test_values_that_do_not_fit(arguments, message):
    with pytest.raises(UserError, match=message):
        Image(*arguments)


def test_evaluation_may_see_the_centre_alone():
    """As by fitting to the larger size and cutting out the centre."""
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3)).astype(np.uint8)
    whole = decode.fit(image, (16, 32), 3)
    data = Image((14, 28), eval_crop=14 / 16)
    np.testing.assert_array_equal(data.read(image, None), whole[1:15, 2:30])
    with pytest.raises(UserError, match="eval_crop"):
        Image(eval_crop=0.0)

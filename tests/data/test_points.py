"""Clouds as an input: how many points, where, and how they are varied."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maskjax.data.points import DigitPoints, PointAugment, Points, unit_ball
from maskjax.errors import UserError

CLOUD = np.random.default_rng(0).normal((5, 6, 7, 8), 2.0, size=(100, 4))


def test_read_chooses_centres_and_scales():
    points = Points(count=40)
    read = points.read(CLOUD, np.random.default_rng(1))
    assert read.shape == points.shape(True) == (40, 3)
    assert read.dtype == points.dtype
    np.testing.assert_allclose(read.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(read, axis=1).max(), 1, rtol=1e-6)


def test_training_draws_differ_evaluation_is_fixed():
    points = Points(count=40, centre=False, scale=False)
    a, b = (points.read(CLOUD, np.random.default_rng(seed)) for seed in (1, 2))
    assert not np.array_equal(a, b)
    assert len(np.unique(a, axis=0)) == 40
    np.testing.assert_array_equal(points.read(CLOUD, None), points.read(CLOUD, None))
    # Evenly along the record, which may be sorted.
    np.testing.assert_allclose(
        points.read(CLOUD, None), CLOUD[(np.arange(40) * 2.5).astype(int), :3], rtol=1e-6
    )


@pytest.mark.parametrize("seed", [None, 3])
def test_a_small_cloud_is_repeated_but_used_whole(seed):
    points = Points(count=64, centre=False, scale=False)
    rng = None if seed is None else np.random.default_rng(seed)
    read = points.read(CLOUD[:50], rng)
    assert read.shape == (64, 3)
    assert len(np.unique(read, axis=0)) == 50


def test_bad_clouds():
    with pytest.raises(ValueError, match="no points"):
        Points().read(np.zeros((0, 3)), None)
    with pytest.raises(ValueError, match="not finite"):
        Points(count=2).read(np.full((4, 3), np.nan), None)
    with pytest.raises(UserError, match=r"\[points, 3\]"):
        Points().read(np.zeros((4, 2)), None)
    with pytest.raises(UserError, match="count of points is 0"):
        Points(count=0)


def test_augmentation_scales_each_axis_and_moves():
    cloud = jnp.asarray(unit_ball(CLOUD[None, :, :3]).repeat(64, axis=0))
    varied = np.asarray(jax.jit(PointAugment())(jax.random.key(0), cloud))
    # An affine map of each axis by itself: solve for its two numbers.
    x, y = np.asarray(cloud), varied
    factor = (y.max(1) - y.min(1)) / (x.max(1) - x.min(1))
    offset = y.mean(1) - factor * x.mean(1)
    np.testing.assert_allclose(y, x * factor[:, None] + offset[:, None], atol=1e-5)
    assert factor.min() >= 2 / 3 - 1e-4 and factor.max() <= 1.5 + 1e-4
    assert factor.max() - factor.min() > 0.7
    assert 0.15 < np.abs(offset).max() <= 0.2 + 1e-4
    assert len(np.unique(factor.round(4))) > 150


@pytest.mark.parametrize(("axis", "fixed"), [("x", 0), ("y", 1), ("z", 2)])
def test_rotation_keeps_one_axis_and_all_distances(axis, fixed):
    augment = PointAugment(rotate=180, axis=axis, scale=(1.0, 1.0), shift=0.0)
    cloud = jnp.asarray(unit_ball(CLOUD[None, :, :3]).repeat(8, axis=0))
    turned = np.asarray(augment(jax.random.key(0), cloud))
    np.testing.assert_allclose(turned[..., fixed], cloud[..., fixed], atol=1e-6)
    np.testing.assert_allclose(
        np.linalg.norm(turned, axis=-1), np.linalg.norm(cloud, axis=-1), atol=1e-6
    )
    assert np.abs(turned[0] - turned[1]).max() > 0.1


@pytest.mark.parametrize(
    "arguments", [dict(axis="w"), dict(scale=(0.0, 1.0)), dict(scale=(2.0, 1.0)), dict(shift=-1.0)]
)
def test_meaningless_augmentation(arguments):
    with pytest.raises(UserError, match=next(iter(arguments))):
        PointAugment(**arguments)


def test_the_baseline_does_not_depend_on_the_order_of_points():
    values = np.stack([CLOUD[:, :3], CLOUD[::-1, :3], CLOUD[:, 2::-1]]).astype(np.float32)
    raw = Points(count=100).raw(values)
    assert raw.shape == (3, 512)
    np.testing.assert_array_equal(raw[0], raw[1])
    assert not np.array_equal(raw[0], raw[2])
    np.testing.assert_allclose(np.expm1(raw).sum(axis=1), 100, rtol=1e-5)


def test_what_encode_accepts():
    Points().accept(unit_ball(CLOUD[None, :, :3]))
    with pytest.raises(UserError, match="unit_ball"):
        Points().accept(CLOUD[None, :, :3])
    with pytest.raises(UserError, match=r"\[B, P, 3\]"):
        Points().accept(CLOUD)


def test_digits_are_reliefs():
    records = pickle.loads(pickle.dumps(DigitPoints(count=2000, height=0.5).open("test")))
    record, again = records[3], records[3]
    np.testing.assert_array_equal(record["points"], again["points"])
    assert record["label"] == records.digits[3]["label"]
    assert records.num_classes == 10 and len(records) == 355
    x, y, z = record["points"].T
    assert 0 <= x.min() <= x.max() <= 1 and 0 <= y.min() <= y.max() <= 1
    # Every point stands on its pixel, as high as that is bright.
    image = records.digits[3]["image"][..., 0] / 255
    rows, columns = ((1 - y) * 8).astype(int), (x * 8).astype(int)
    np.testing.assert_allclose(z, 0.5 * image[rows, columns], atol=1e-6)
    drawn = np.zeros((8, 8))
    np.add.at(drawn, (rows, columns), 1 / 2000)
    np.testing.assert_allclose(drawn, image / image.sum(), atol=0.03)

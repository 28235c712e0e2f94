"""Tests of maskjax.data.augment."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maskjax.data import Augment, decode, resample
from maskjax.errors import UserError

RNG = np.random.default_rng(0)
# The value of a pixel is where it is: (row, column, constant).
GRID = np.stack([*np.mgrid[0:32, 0:48], np.full((32, 48), 7)], -1).astype(np.uint8)


def _run(augment, images, size, seed=0):
    function = jax.jit(augment.on_device, static_argnums=2)
    return np.asarray(function(jax.random.key(seed), images, size))


def _host(augment, images, size, seed=0):
    rng = np.random.default_rng(seed)
    return np.stack([augment.on_host(rng, image, size) for image in images])


def test_nothing_to_do():
    images = np.stack([GRID] * 3)
    augmented = _run(Augment(), images, (32, 48))
    assert augmented.dtype == np.float32
    np.testing.assert_array_equal(augmented, images)
    np.testing.assert_array_equal(_host(Augment(place="host"), images, (32, 48)), images)


def test_none_fits_the_size():
    noise = RNG.integers(0, 256, (2, 5, 5, 3)).astype(np.uint8)
    images = np.stack([decode.resize(image, (30, 47)) for image in noise])
    for size in ((9, 9), (40, 20)):
        fitted = np.stack([decode.fit(image, size, 3) for image in images])
        np.testing.assert_allclose(_run(Augment(), images, size), fitted, atol=1.5)
        np.testing.assert_array_equal(_host(Augment(), images, size), fitted)


def test_after_the_host_the_device_does_nothing():
    images = np.stack([GRID] * 8)
    augment = Augment(place="host", crop="shift", shift=4, flip=True)
    np.testing.assert_array_equal(_run(augment, images, (32, 48)), images)


def test_flip_is_fair_and_per_image():
    images = np.stack([GRID] * 2000)[:, :2, :8]
    flipped = _run(Augment(flip=True), images, (2, 8))
    is_flipped = flipped[:, 0, 0, 1] == 7
    np.testing.assert_array_equal(flipped[is_flipped], images[is_flipped][:, :, ::-1])
    np.testing.assert_array_equal(flipped[~is_flipped], images[~is_flipped])
    assert 0.45 < is_flipped.mean() < 0.55  # 4.5 sigma
    host = _host(Augment(flip=True), images, (2, 8))
    assert 0.45 < (host[:, 0, 0, 1] == 7).mean() < 0.55


@pytest.mark.parametrize("run", [_run, _host])
def test_shift_moves_by_whole_pixels_and_reflects(run):
    images = np.stack([GRID] * 400)
    shifted = run(Augment(crop="shift", shift=2), images, (32, 48)).astype(int)
    rows, columns = shifted[:, 10, 10, 0] - 10, shifted[:, 10, 10, 1] - 10
    for values in (rows, columns):
        assert set(values) == {-2, -1, 0, 1, 2}
        assert np.bincount(values + 2).min() > 40  # 80 each expected; 5 sigma
    assert abs(np.corrcoef(rows, columns)[0, 1]) < 0.25
    padded = np.pad(GRID, ((2, 2), (2, 2), (0, 0)), mode="reflect")
    for image, row, column in zip(shifted[:50], rows, columns, strict=False):
        np.testing.assert_array_equal(image, padded[row + 2 :, column + 2 :][:32, :48])


def _boxes(run, augment, n=1500):
    """Reads the boxes off crops of the grid: [n, 4] top, left, height, width."""
    out = run(augment, np.stack([GRID] * n), (16, 16)).astype(np.float64)
    # Pixels 4 and 11 are away from the border, where interpolation of a ramp is exact.
    low, high = out[:, 4, 4, :2], out[:, 11, 11, :2]
    extent = (high - low) / 7 * 16
    return np.concatenate([low + 0.5 - 4.5 / 16 * extent, extent], axis=1)


@pytest.mark.parametrize("run", [_run, _host])
def test_resized_crops_have_the_distribution_of_the_paper(run):
    boxes = _boxes(run, Augment(crop="resized", scale=(0.2, 0.6), ratio=(0.5, 2.0)))
    tolerance = 0.15 if run is _run else 2.5  # the host rounds pixels
    top, left, height, width = boxes.T
    assert top.min() > -tolerance and (top + height).max() < 32 + tolerance
    assert left.min() > -tolerance and (left + width).max() < 48 + tolerance
    if run is _run:
        np.testing.assert_allclose(boxes, np.round(boxes), atol=0.2)  # whole pixels
    share = height * width / GRID[..., 0].size
    assert share.min() > 0.15 and share.max() < 0.68
    assert abs(share.mean() - 0.38) < 0.03  # large flat boxes are drawn again, so below 0.4
    log_ratio = np.log(width / height)
    assert -0.85 < log_ratio.min() < -0.5 and 0.5 < log_ratio.max() < 0.85
    # Uniform corners: on average half of the free room.
    assert abs((top.sum() / (32 - height).sum()) - 0.5) < 0.04
    assert abs((left.sum() / (48 - width).sum()) - 0.5) < 0.04


def test_host_and_device_crops_agree_in_distribution():
    augment = Augment(crop="resized", scale=(0.2, 1.0))
    device, host = _boxes(_run, augment), _boxes(_host, augment)
    np.testing.assert_allclose(device.mean(0), host.mean(0), atol=0.8)
    np.testing.assert_allclose(device.std(0), host.std(0), atol=0.6)


@pytest.mark.parametrize("run", [_run, _host])
def test_a_box_that_never_fits_is_replaced_by_the_central_one(run):
    # Area 100 %, ratio 1 on a 32 x 48 image: no box fits; the largest central square is taken.
    augment = Augment(crop="resized", scale=(1.0, 1.0), ratio=(1.0, 1.0))
    out = run(augment, GRID[None], (32, 32))
    np.testing.assert_allclose(out[0], GRID[:, 8:40], atol=1e-3)
    upright = GRID.transpose(1, 0, 2)
    out = run(augment, upright[None], (32, 32))
    np.testing.assert_allclose(out[0], upright[8:40], atol=1e-3)


def test_a_crop_is_a_crop_of_the_image():
    image = RNG.integers(0, 256, (24, 24, 3)).astype(np.uint8)
    augment = Augment(crop="resized")
    key = jax.random.key(5)
    box = jax.jit(augment._box, static_argnums=1)(jax.random.split(key, (1, 2))[0, 0], (24, 24))
    crop = jax.jit(resample.crop_resize, static_argnums=2)(image, box, (12, 12))
    ours = jax.jit(augment.on_device, static_argnums=2)(key, image[None], (12, 12))[0]
    wanted = np.clip(crop, 0, 255)
    np.testing.assert_allclose(ours, wanted, atol=1e-3)
    assert ours.min() >= 0 and ours.max() <= 255


def test_images_have_draws_of_their_own_and_keys_decide():
    images = np.stack([GRID] * 16)
    augment = Augment(crop="resized", flip=True)
    first, again, other = (_run(augment, images, (8, 8), seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert len({image.tobytes() for image in first}) == 16
    assert not any(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_sharded_batches_get_the_same_draws():
    devices = jax.devices()
    if len(devices) < 2:
        pytest.skip("one device only")
    images = RNG.integers(0, 256, (8 * len(devices), 16, 16, 1)).astype(np.uint8)
    mesh = jax.make_mesh(
        (len(devices),), ("data",), axis_types=(jax.sharding.AxisType.Auto,), devices=devices
    )
    sharding = jax.sharding.NamedSharding(mesh, jax.P("data"))
    function = jax.jit(functools.partial(Augment(crop="resized", flip=True).on_device, size=(8, 8)))
    one = function(jax.random.key(3), jnp.asarray(images))
    many = function(jax.random.key(3), jax.device_put(images, sharding))
    np.testing.assert_allclose(one, many, atol=1e-3)


def test_host_crops_the_original():
    # Crops of 1/64 of the area at the resolution of the image, not of a reduced copy.
    image = RNG.integers(0, 256, (64, 64, 1)).astype(np.uint8)
    augment = Augment(place="host", crop="resized", scale=(1 / 64, 1 / 64), ratio=(1.0, 1.0))
    crop = augment.on_host(np.random.default_rng(0), image, (8, 8))
    windows = np.lib.stride_tricks.sliding_window_view(image[..., 0], (8, 8))
    assert (windows == crop[..., 0]).all((2, 3)).any()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(place="devise"), "augment.place is 'devise'; did you mean 'device'"),
        (dict(crop="resize"), "did you mean 'resized'"),
        (dict(scale=(0.0, 1.0)), "augment.scale"),
        (dict(scale=(0.5, 0.2)), "augment.scale"),
        (dict(scale=(0.5, 1.5)), "augment.scale"),
        (dict(ratio=(0.0, 1.0)), "augment.ratio"),
        (dict(ratio=(2.0, 1.0)), "augment.ratio"),
        (dict(shift=-1), "augment.shift"),
        (dict(shift=0.5), "augment.shift"),
    ],
)
def test_values_without_meaning(arguments, message):
    with pytest.raises(UserError, match=message):
        Augment(**arguments)


def test_shift_beyond_the_image():
    augment = Augment(crop="shift", shift=8)
    with pytest.raises(UserError, match="8 x 9 pixels"):
        augment.on_device(jax.random.key(0), np.zeros((1, 8, 9, 1), np.uint8), (8, 9))


@pytest.mark.parametrize("run", [_run, _host])
def test_clipped_crops_are_drawn_once_and_cut_to_the_image(run):
    """Three times as wide as high and of the whole area: 22 x 68, cut to 22 x 48."""
    augment = Augment(crop="clipped", scale=(1.0, 1.0), ratio=(3.0, 3.0))
    boxes = _boxes(run, augment, 200)
    tolerance = 0.2 if run is _run else 2.5
    np.testing.assert_allclose(boxes[:, 2:], np.full((200, 2), (23, 48)), atol=tolerance + 0.5)
    assert boxes[:, 0].max() - boxes[:, 0].min() > 5  # rows are free, columns are not
    assert np.ptp(boxes[:, 1]) < 2 * tolerance

"""Tests of maskjax.data.resample: against Pillow and jax.image."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from maskjax.data import resample

RNG = np.random.default_rng(0)
crop_resize = jax.jit(resample.crop_resize, static_argnums=2)

# (image size, (top, left, height, width), result size)
CASES = [
    ((40, 56), (0, 0, 40, 56), (16, 16)),
    ((40, 56), (5, 7, 30, 20), (16, 24)),
    ((40, 56), (5, 7, 9, 11), (32, 20)),
    ((40, 56), (10, 30, 30, 26), (33, 7)),
    ((40, 56), (3, 3, 1, 1), (4, 4)),
    ((40, 56), (0, 50, 40, 2), (8, 8)),
    ((8, 8), (1, 2, 6, 5), (8, 8)),
    ((16, 16), (0, 0, 16, 16), (16, 16)),
]


@pytest.mark.parametrize("shape, box, size", CASES)
def test_equals_pillow_in_floating_point(shape, box, size):
    image = RNG.uniform(0, 255, shape).astype(np.float32)
    top, left, height, width = box
    crop = Image.fromarray(image).crop((left, top, left + width, top + height))
    wanted = np.asarray(crop.resize((size[1], size[0]), Image.Resampling.BICUBIC))
    ours = crop_resize(image[..., None], jnp.array(box), size)
    assert ours.dtype == jnp.float32
    np.testing.assert_allclose(ours[..., 0], wanted, atol=2e-3)


@pytest.mark.parametrize("shape, box, size", CASES)
def test_equals_pillow_on_bytes(shape, box, size):
    smooth = Image.fromarray(RNG.integers(0, 256, (6, 6, 3)).astype(np.uint8))
    image = np.asarray(smooth.resize((shape[1], shape[0]), Image.Resampling.BILINEAR))
    top, left, height, width = box
    crop = Image.fromarray(image).crop((left, top, left + width, top + height))
    wanted = np.asarray(crop.resize((size[1], size[0]), Image.Resampling.BICUBIC), np.float32)
    ours = np.clip(crop_resize(image, jnp.array(box), size), 0, 255)
    np.testing.assert_allclose(ours, wanted, atol=1.1)  # Pillow rounds after each axis


@pytest.mark.parametrize("size", [(16, 16), (40, 56), (70, 90), (20, 100)])
def test_equals_jax_image_on_the_full_box(size):
    image = RNG.uniform(0, 255, (40, 56, 2)).astype(np.float32)
    wanted = jax.image.resize(image, (*size, 2), "cubic", precision="highest")
    ours = crop_resize(image, jnp.array([0.0, 0.0, 40.0, 56.0]), size)
    np.testing.assert_allclose(ours, wanted, atol=2e-3)


def test_boxes_between_pixels_move_the_image():
    ramp = jnp.arange(32, dtype=jnp.float32)[None, :, None] * jnp.ones((32, 1, 1))
    for left in (4.0, 4.25, 4.5):
        ours = crop_resize(ramp, jnp.array([8.0, left, 16.0, 16.0]), (16, 16))
        # Away from the border, interpolation of a ramp is exact.
        np.testing.assert_allclose(ours[5, 3:-3, 0], left + np.arange(16)[3:-3], atol=1e-4)


def test_rows_sum_to_one_for_any_box():
    rng = np.random.default_rng(1)
    weights = jax.jit(resample.weights, static_argnums=(0, 1))
    for _ in range(200):
        extent = rng.uniform(0.05, 20)
        start = rng.uniform(0, 20 - extent)
        rows = weights(20, 7, start, extent)
        np.testing.assert_allclose(rows.sum(1), 1.0, rtol=1e-5)
        # Nothing outside the box is read.
        pixels = np.arange(20)
        outside = (pixels + 1 <= start) | (pixels >= start + extent)
        assert not np.asarray(rows)[:, outside].any()


def test_under_vmap_and_jit():
    images = RNG.integers(0, 256, (3, 20, 20, 1)).astype(np.uint8)
    boxes = jnp.array([[0, 0, 20, 20], [3, 4, 10, 9], [10, 10, 5, 5]])
    together = jax.jit(jax.vmap(lambda image, box: crop_resize(image, box, (6, 6))))(images, boxes)
    for image, box, ours in zip(images, boxes, together, strict=True):
        np.testing.assert_allclose(ours, crop_resize(image, box, (6, 6)), atol=1e-3)

"""Tests of maskjax.data.decode."""

import io

import numpy as np
import pytest
from PIL import Image

from maskjax.data import decode
from maskjax.errors import UserError

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (5, 7, 3)).astype(np.uint8)
GREY = RNG.integers(0, 256, (5, 7)).astype(np.uint8)


def _bytes(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _decoded(image, kind="PNG", **options):
    pixels = decode.decode_image(_bytes(image, kind, **options))
    assert pixels.dtype == np.uint8 and pixels.ndim == 3
    return pixels


def test_rgb_and_grey():
    np.testing.assert_array_equal(_decoded(Image.fromarray(RGB)), RGB)
    np.testing.assert_array_equal(_decoded(Image.fromarray(GREY)), GREY[..., None])
    np.testing.assert_array_equal(_decoded(Image.fromarray(RGB), "WEBP", lossless=True), RGB)
    bits = Image.fromarray(GREY > 100)
    np.testing.assert_array_equal(_decoded(bits)[..., 0], np.where(GREY > 100, 255, 0))


def test_transparency_is_laid_on_white():
    alpha = np.zeros((5, 7, 1), np.uint8)
    alpha[:2], alpha[2] = 255, 51
    pixels = _decoded(Image.fromarray(np.concatenate([RGB, alpha], -1)))
    assert pixels.shape == (5, 7, 3)
    np.testing.assert_array_equal(pixels[:2], RGB[:2])
    np.testing.assert_array_equal(pixels[3:], 255)
    np.testing.assert_allclose(pixels[2], 0.2 * RGB[2] + 0.8 * 255, atol=1)


def test_transparent_grey_stays_grey():
    alpha = np.full((5, 7), 255, np.uint8)
    alpha[3:] = 0
    pixels = _decoded(Image.fromarray(np.stack([GREY, alpha], -1), "LA"))
    assert pixels.shape == (5, 7, 1)
    np.testing.assert_array_equal(pixels[:3, :, 0], GREY[:3])
    np.testing.assert_array_equal(pixels[3:], 255)


def test_palette():
    image = Image.new("P", (7, 5))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.paste(1, (0, 0, 3, 5))
    pixels = _decoded(image)
    np.testing.assert_array_equal(pixels[0, 0], [200, 100, 50])
    np.testing.assert_array_equal(pixels[0, 6], [10, 20, 30])
    pixels = _decoded(image, transparency=0)
    np.testing.assert_array_equal(pixels[0, 0], [200, 100, 50])
    np.testing.assert_array_equal(pixels[0, 6], [255, 255, 255])


def test_cmyk():
    cyan = Image.new("CMYK", (8, 8), (255, 0, 0, 0))
    pixels = _decoded(cyan, "JPEG", quality=100)
    np.testing.assert_allclose(pixels[4, 4], [0, 255, 255], atol=4)


def test_16_bit_grey():
    wide = (GREY.astype(np.uint16) * 257)[:, :]
    wide[0, :3] = 128, 129, 65535  # 0.498, 0.502, 255 in units of 257
    pixels = _decoded(Image.fromarray(wide))
    np.testing.assert_array_equal(pixels[0, :3, 0], [0, 1, 255])
    np.testing.assert_array_equal(pixels[1:, :, 0], GREY[1:])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(orientation):
    # What each value of the tag says about the stored rows and columns (EXIF 2.3, table 6).
    upright = {
        1: RGB,
        2: RGB[:, ::-1],
        3: RGB[::-1, ::-1],
        4: RGB[::-1],
        5: RGB.transpose(1, 0, 2),
        6: np.rot90(RGB, -1),
        7: RGB[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(RGB),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    np.testing.assert_array_equal(_decoded(Image.fromarray(RGB), exif=exif), upright)


def test_damaged_exif_is_ignored():
    pixels = _decoded(Image.fromarray(RGB), "WEBP", lossless=True, exif=b"Exif\0\0nonsense")
    np.testing.assert_array_equal(pixels, RGB)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_truncated_data_raise(kind):
    noise = RNG.integers(0, 256, (64, 64, 3)).astype(np.uint8)
    data = _bytes(Image.fromarray(noise), kind)
    decode.decode_image(data)
    with pytest.raises(Exception, match="."):
        decode.decode_image(data[: len(data) // 2])
    with pytest.raises(Exception, match="."):
        decode.decode_image(b"")


def test_to_channels():
    np.testing.assert_array_equal(
        decode.to_channels(RGB, 1)[..., 0], np.asarray(Image.fromarray(RGB).convert("L"))
    )
    np.testing.assert_array_equal(decode.to_channels(GREY[..., None], 3), np.stack([GREY] * 3, -1))
    with pytest.raises(UserError, match="4 channels but the input has 3"):
        decode.to_channels(np.zeros((2, 2, 4), np.uint8), 3)


def test_fit_keeps_an_image_of_the_right_size():
    np.testing.assert_array_equal(decode.fit(RGB, (5, 7), 3), RGB)


def test_fit_covers_and_takes_the_centre():
    # 12 x 24 to 6 x 6: the middle 12 columns, halved. A ramp shows which pixels each one is from.
    ramp = np.tile((np.arange(24) * 10).astype(np.uint8)[None, :, None], (12, 1, 3))
    fitted = decode.fit(ramp, (6, 6), 3)
    assert fitted.shape == (6, 6, 3)
    np.testing.assert_allclose(fitted[3, :, 1], 65 + 20 * np.arange(6), atol=1)
    fitted = decode.fit(ramp.transpose(1, 0, 2), (6, 6), 3)
    np.testing.assert_allclose(fitted[:, 3, 1], 65 + 20 * np.arange(6), atol=1)


def test_fit_of_equal_height_is_a_crop():
    np.testing.assert_array_equal(decode.fit(RGB, (5, 5), 3), RGB[:, 1:6])
    np.testing.assert_array_equal(decode.fit(RGB, (3, 7), 3), RGB[1:4])


def test_fit_of_many_channels_and_extreme_shapes():
    image = RNG.integers(0, 256, (9, 9, 5)).astype(np.uint8)
    fitted = decode.fit(image, (4, 4), 5)
    for channel in range(5):
        np.testing.assert_array_equal(
            fitted[..., channel : channel + 1],
            decode.fit(image[..., channel : channel + 1], (4, 4), 1),
        )
    assert decode.fit(np.zeros((1, 100_000, 3), np.uint8), (64, 64), 3).shape == (64, 64, 3)


@pytest.mark.parametrize(
    "image", [np.zeros((2, 2, 3)), np.zeros((2, 2), np.uint8), np.zeros((0, 2, 3), np.uint8)]
)
def test_fit_of_no_image(image):
    with pytest.raises(ValueError, match="has to be uint8"):
        decode.fit(image, (2, 2), 3)

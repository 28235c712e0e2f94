"""RandAugment: what each operation does at which magnitude, and how they are drawn."""

import numpy as np
import pytest
from PIL import Image

from maskjax.data import Augment, RandAugment
from maskjax.data import Image as ImageInput
from maskjax.data.rand_augment import OPERATIONS
from maskjax.errors import UserError

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (20, 30, 3)).astype(np.uint8)
FILL = (124, 116, 104)


def apply(name, share, sign=1, pixels=PIXELS):
    fill = FILL[: pixels.shape[-1]] if pixels.ndim == 3 else FILL[:1]
    return np.asarray(OPERATIONS[name](Image.fromarray(pixels), share, sign, fill)).astype(int)


def test_there_are_the_fifteen():
    assert len(OPERATIONS) == 15


@pytest.mark.parametrize("name", OPERATIONS)
def test_magnitude_zero_changes_nothing_but_what_has_none(name):
    changed = np.abs(apply(name, 0.0) - PIXELS).max()
    if name in ("equalise", "invert", "posterise"):  # four bits are left
        assert changed > 0
    elif name != "auto_contrast":
        assert changed == 0


def test_by_hand():
    np.testing.assert_array_equal(apply("invert", 0.9), 255 - PIXELS)
    np.testing.assert_array_equal(apply("posterise", 0.9), PIXELS & 0x80)  # one bit
    assert apply("posterise", 1.0).max() == 0
    # 256 - int(0.9 * 256) = 26: brighter pixels are inverted.
    np.testing.assert_array_equal(
        apply("solarise", 0.9), np.where(PIXELS < 26, PIXELS, 255 - PIXELS)
    )
    brighter = np.where(PIXELS < 128, np.minimum(PIXELS.astype(int) + 99, 255), PIXELS)
    np.testing.assert_array_equal(apply("solarise_add", 0.9), brighter)
    dark = apply("brightness", 1.0, -1)
    np.testing.assert_allclose(dark, 0.1 * PIXELS, atol=1)
    np.testing.assert_allclose(apply("brightness", 0.5), np.minimum(1.45 * PIXELS, 255), atol=1)


def test_geometry():
    # 0.45 of 30 columns and of 20 rows are 13.5 and 9 pixels.
    right = apply("translate_y", 1.0)
    np.testing.assert_array_equal(right[:11], PIXELS[9:])
    np.testing.assert_array_equal(right[12:], np.broadcast_to(FILL, right[12:].shape))
    moved = apply("translate_x", 1.0, -1)
    np.testing.assert_array_equal(moved[:, :13], np.broadcast_to(FILL, moved[:, :13].shape))
    turned = Image.fromarray(PIXELS).rotate(-27.0, Image.Resampling.BICUBIC, fillcolor=FILL)
    np.testing.assert_array_equal(apply("rotate", 0.9, -1), np.asarray(turned))
    # A row y is moved by 0.3 (y + 1/2) columns; Pillow cuts off what is behind the point.
    ramp = np.broadcast_to(np.arange(60, dtype=np.uint8)[None, :], (20, 60))
    sheared = apply("shear_x", 1.0, pixels=np.ascontiguousarray(ramp))
    np.testing.assert_array_equal(sheared[:, 10] - 10, np.floor(0.3 * (np.arange(20) + 0.5)))


def test_draws():
    """With one operation of probability 1/2, half of the images stay; magnitudes scatter."""
    half = RandAugment(operations=1, magnitude=10.0, deviation=0.0)
    outs = [half(np.random.default_rng(i), PIXELS, FILL) for i in range(400)]
    same = np.mean([np.array_equal(out, PIXELS) for out in outs])
    assert 0.4 < same < 0.6
    distinct = {out.tobytes() for out in outs}
    # Invert, equalise, auto-contrast (nothing to do here), posterise, solarise, solarise-add, and
    # nine with a direction each.
    assert 20 <= len(distinct) <= 25
    spread = RandAugment(operations=1, deviation=0.5)
    assert len({spread(np.random.default_rng(i), PIXELS, FILL).tobytes() for i in range(400)}) > 60
    again = [half(np.random.default_rng(3), PIXELS, FILL) for _ in range(2)]
    np.testing.assert_array_equal(*again)


@pytest.mark.parametrize("channels", [1, 3])
def test_as_part_of_an_input(channels):
    data = ImageInput(
        (16, 16),
        channels,
        (0.5,) * channels,
        (0.5,) * channels,
        augment=Augment(place="host", crop="resized"),
        rand_augment=RandAugment(operations=15, probability=1.0),
    )
    value = PIXELS[..., :channels]
    plain = data.read(value, None)
    seen = [data.read(value, np.random.default_rng(i)) for i in range(10)]
    assert all(x.shape == (16, 16, channels) and x.dtype == np.uint8 for x in (plain, *seen))
    assert len({x.tobytes() for x in seen}) == 10
    np.testing.assert_array_equal(data.read(value, None), plain)


def test_values_without_meaning():
    with pytest.raises(UserError, match="magnitude 11"):
        RandAugment(magnitude=11.0)
    with pytest.raises(UserError, match="0 operations"):
        RandAugment(operations=0)
    with pytest.raises(UserError, match="on the host"):
        ImageInput(rand_augment=RandAugment())

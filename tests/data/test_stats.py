"""Tests of maskjax.data.stats."""

import numpy as np
import pytest

from maskjax.data import Arrays, Digits, Image, Scalar, channel_statistics
from maskjax.errors import UserError


def image(size, channels):
    return Image(size, channels, (0.0,) * channels, (1.0,) * channels)


def test_equals_numpy(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (150, 6, 5, 3)).astype(np.uint8)
    images[..., 2] //= 4
    np.save(tmp_path / "images.npy", images)
    records = Arrays(str(tmp_path / "images.npy")).open("all")
    mean, std = channel_statistics(records, "image", image((6, 5), 3))
    assert isinstance(mean, tuple) and all(type(v) is float for v in mean + std)
    np.testing.assert_allclose(mean, (images / 255.0).mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(std, (images / 255.0).std((0, 1, 2)), rtol=1e-12)


def test_images_are_fitted_and_unreadable_ones_left_out():
    class Some:
        num_classes = None
        label_names = None

        def __len__(self):
            return 3

        def __getitem__(self, i):
            if i == 1:
                raise OSError("broken")
            return {"image": np.full((4 + i, 9, 1), 100 + 2 * i, np.uint8)}

    mean, std = channel_statistics(Some(), "image", image((2, 2), 3), threads=0)
    np.testing.assert_allclose(mean, [102 / 255] * 3)
    np.testing.assert_allclose(std, [2 / 255] * 3)


def test_nothing_readable():
    class Broken:
        num_classes = None
        label_names = None

        def __len__(self):
            return 2

        def __getitem__(self, i):
            raise OSError("broken")

    with pytest.raises(UserError, match="No record"):
        channel_statistics(Broken(), "image", image((2, 2), 1))
    digits = Digits().open("test")
    assert channel_statistics(digits, "image", image((8, 8), 1))[0][0] > 0.2
    with pytest.raises(UserError, match="'score' has no pixels"):
        channel_statistics(digits, "score", Scalar())

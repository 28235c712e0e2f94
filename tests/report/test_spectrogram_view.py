"""Pictures of sounds."""

import types

import numpy as np

from maskjax.data import LogMel
from maskjax.report.views import spectrogram

SYSTEM = types.SimpleNamespace(inputs={"audio": LogMel(samples=4000, rate=8000)})


def test_colours_order_in_grey_and_are_clipped():
    x = spectrogram.colours(np.linspace(0, 1, 50))
    grey = x.astype(float) @ [0.299, 0.587, 0.114]
    assert (np.diff(grey) > 0).all() and x.dtype == np.uint8
    np.testing.assert_array_equal(spectrogram.colours(np.array([-1.0, 2.0])), x[[0, -1]])


def test_time_goes_right_and_low_frequencies_are_at_the_bottom():
    levels = np.zeros((1, 3, 2, 1))
    levels[0, 2, 0] = 1.0  # the last frame, the lowest band
    for array in (levels, levels[..., 0]):
        picture = spectrogram.columns({"original": array}, SYSTEM)["original"]
        assert picture.shape == (1, 2, 3, 3)
        bright = picture[0].sum(axis=-1) > 400
        np.testing.assert_array_equal(bright, [[False, False, False], [False, False, True]])


def test_what_is_masked_is_grey():
    original = np.random.default_rng(0).uniform(0.6, 1.0, (1, 4, 2))
    masked = original.copy()
    masked[:, 1:3] = 0.5
    pictures = spectrogram.columns({"original": original, "masked": masked}, SYSTEM)
    grey = (pictures["masked"] == 128).all(axis=-1)[0]
    np.testing.assert_array_equal(grey, [[False, True, True, False]] * 2)
    np.testing.assert_array_equal(pictures["masked"][0][~grey], pictures["original"][0][~grey])


def test_waveforms_are_drawn_as_spectrograms():
    t = np.arange(4000) / 8000
    wave = 0.5 + 0.25 * np.sin(2 * np.pi * 500 * t)
    wave[2000:] = 0.5  # silence
    picture = spectrogram.columns({"original": wave[None, :, None]}, SYSTEM)["original"]
    assert picture.shape == (1, 64, 48, 3)
    brightness = picture[0].astype(int).sum(axis=-1)
    assert (brightness[:, -10:] == brightness[:, -10:].min()).all()
    row = brightness[:, 5].argmax()
    assert 32 < row < 63  # 500 Hz is in the lower half

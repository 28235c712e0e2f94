"""Bands of a spectrogram: where they lie, what they change, what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maskjax.data import Bands, LogMel, Waveform, set_bands
from maskjax.errors import UserError


def test_lengths_and_places_are_uniform_within_the_limits():
    size, most = (100, 24), np.array([20, 8])
    draw = jax.jit(Bands(*most), static_argnums=(1, 2))
    bands = np.asarray(draw(jax.random.key(0), 40_000, size))
    assert bands.shape == (40_000, 2, 2) and bands.dtype == np.int32
    start, end = bands[..., 0], bands[..., 1]
    length = end - start
    assert (start >= 0).all() and (end <= np.array(size)[None, :]).all()
    for axis in range(2):
        counts = np.bincount(length[:, axis])
        assert len(counts) == most[axis]  # 0 to one below the greatest
        np.testing.assert_allclose(counts / 40_000, 1 / most[axis], rtol=0.12)
        for long in (0, most[axis] - 1):
            starts = np.bincount(start[length[:, axis] == long, axis], minlength=size[axis])
            # A length between long and long + 1 was drawn: the last start is rare, or never.
            free = size[axis] - long
            assert not starts[free:].any() and starts[: free - 1].all()
            share = starts[: free - 1] / starts.sum()
            deviation = np.sqrt(starts.sum() / free) / starts.sum()
            assert np.abs(share - 1 / (free - 0.5)).max() < 5 * deviation
    # Examples, axes, lengths and places know nothing of each other.
    assert abs(np.corrcoef(length.T)[0, 1]) < 0.02
    assert abs(np.corrcoef(start.T)[0, 1]) < 0.02
    assert abs(np.corrcoef(length[1:, 0], length[:-1, 0])[0, 1]) < 0.02


def test_no_length_is_no_band():
    bands = np.asarray(Bands(0, 5)(jax.random.key(0), 100, (30, 12)))
    assert (bands[:, 0, 0] == bands[:, 0, 1]).all()
    assert (bands[:, 1, 0] < bands[:, 1, 1]).any()


def test_bands_are_set_and_nothing_else():
    x = np.random.default_rng(0).normal(size=(3, 6, 4, 1)).astype(np.float32)
    bands = np.array([[[1, 3], [0, 0]], [[0, 0], [2, 4]], [[5, 6], [0, 1]]], np.int32)
    expected = x.copy()
    expected[0, 1:3] = expected[1, :, 2:4] = expected[2, 5:] = expected[2, :, :1] = 0.5
    y = jax.jit(set_bands)(jnp.asarray(x), jnp.asarray(bands), 0.5)
    np.testing.assert_array_equal(y, expected)


def test_zero_is_a_logarithm_of_zero():
    sound = LogMel(samples=1000, rate=8000, mels=16, frames=12, mean=-5.0, std=2.0)
    view = sound.normalise(jnp.ones((1, 1000), jnp.int16))
    np.testing.assert_allclose(view[:, 11], sound.zero)  # behind its 11 frames


def test_refusals():
    for wrong in (dict(frames=-1), dict(frames=0, frequencies=0)):
        with pytest.raises(UserError, match="none is negative and one is positive"):
            Bands(**wrong)
    small = LogMel(samples=1000, rate=8000, mels=16, frames=12)
    Bands(12, 16).check(small)
    with pytest.raises(UserError, match="spectrogram has 12 and 16"):
        Bands(13, 4).check(small)
    for other in (Waveform(samples=640), LogMel(samples=1000, rate=8000, mels=16, axes=1)):
        with pytest.raises(UserError, match="those of a spectrogram with two axes"):
            Bands(4, 4).check(other)

"""Log-mel energies and cepstra agree with Kaldi's (kaldi-native-fbank)."""

import jax.numpy as jnp
import numpy as np
import pytest

from maskjax.errors import UserError
from maskjax.tokens import spectrogram


@pytest.fixture(scope="module")
def kaldi(golden):
    return golden("kaldi_fbank")


def wave(kaldi, name):
    return jnp.asarray(kaldi[f"in/{name}"], jnp.float32)[None, :] / 32768


def close(actual, expected, rtol=1e-5):
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=rtol * np.abs(expected).max())


@pytest.mark.parametrize(
    ("name", "rate", "options"),
    [
        ("fbank16_hanning64", 16000, dict(mels=64, window="hanning")),
        ("fbank16_povey80", 16000, dict(mels=80, window="povey")),
        ("fbank8_hamming32", 8000, dict(mels=32, window="hamming", low=60.0, high=3600.0)),
    ],
)
def test_log_mel(kaldi, name, rate, options):
    x = wave(kaldi, f"wave{rate // 1000}")
    close(spectrogram.log_mel(x, rate, **options)[0], kaldi[f"out/{name}"])


def test_mfcc(kaldi):
    close(spectrogram.mfcc(wave(kaldi, "wave16"), 16000)[0], kaldi["out/mfcc16"])


def test_frames_count_whole_windows_only():
    x = jnp.arange(10.0)[None, :]
    for length, shift in ((4, 3), (4, 2), (6, 4), (3, 3), (10, 1)):
        count = spectrogram.frame_count(10, length, shift)
        expected = [np.arange(i * shift, i * shift + length) for i in range(count)]
        np.testing.assert_array_equal(spectrogram.frames(x, length, shift)[0], expected)
    long = jnp.arange(100.0)[None, :]  # more pieces than are sliced
    np.testing.assert_array_equal(
        spectrogram.frames(long, 41, 20)[0], np.arange(3)[:, None] * 20 + np.arange(41)[None, :]
    )
    assert spectrogram.frame_count(160_000, 400, 160) == 998
    with pytest.raises(UserError, match="3 samples is shorter than one frame of 4"):
        spectrogram.frames(x[:, :3], 4, 3)


@pytest.mark.parametrize("hertz", [300.0, 1000.0, 3000.0])
def test_a_tone_is_loudest_in_its_band(hertz):
    x = jnp.sin(2 * np.pi * hertz * jnp.arange(4000) / 8000)[None, :]
    energies = spectrogram.log_mel(x, 8000, mels=32)[0].mean(axis=0)
    centres = np.linspace(spectrogram.to_mel(20), spectrogram.to_mel(4000), 34)[1:-1]
    nearest = np.abs(centres - spectrogram.to_mel(hertz)).argmin()
    assert abs(int(energies.argmax()) - nearest) <= 1


def test_bands_without_a_frequency_get_the_floor():
    """Audio-MAE's 128 bands at 16 kHz are partly narrower than a step of the transform."""
    empty = ~spectrogram.mel_bank(128, 512, 16000).any(axis=0)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 400)), jnp.float32)
    energies = np.asarray(spectrogram.log_mel(x, 16000, mels=128)[0, 0])
    np.testing.assert_allclose(energies[empty], np.log(spectrogram.FLOOR), rtol=1e-6)
    assert 0 < empty.sum() < 12 and (energies[~empty] > -10).all()


def test_silence_is_finite():
    assert np.isfinite(spectrogram.log_mel(jnp.zeros((1, 400)), 16000)).all()


def test_deltas_are_slopes():
    x = 3.0 * jnp.arange(9.0)[None, :, None]
    d = spectrogram.deltas(x)[0, :, 0]
    np.testing.assert_allclose(d[2:-2], 3.0, rtol=1e-6)
    np.testing.assert_allclose(d[0], 3 * (1 * 1 + 2 * 2) / 10, rtol=1e-6)
    assert spectrogram.with_deltas(x).shape == (1, 9, 3)


def test_refusals():
    x = jnp.zeros((1, 400))
    with pytest.raises(UserError, match="window must be one of"):
        spectrogram.log_mel(x, 16000, window="square")
    with pytest.raises(UserError, match="do not fit a rate"):
        spectrogram.log_mel(x, 16000, high=9000.0)
    with pytest.raises(UserError, match="1 to 8 cepstral"):
        spectrogram.cepstrum(jnp.zeros((1, 8)), 13)

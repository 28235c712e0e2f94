"""Sounds as an input, and the sources of sounds."""

import pickle
import sys
import wave

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maskjax.data import (
    AudioFolder,
    DigitTones,
    LogMel,
    Recording,
    Waveform,
    eval_batches,
    train_batches,
)
from maskjax.errors import UserError
from maskjax.tokens.spectrogram import log_mel

SMALL = LogMel(samples=1000, rate=8000, mels=16, frames=12, mean=-5.0, std=2.0, window="povey")


def sound(samples, rate=8000, frequency=440.0):
    t = np.arange(samples) / rate
    return np.round(8000 * np.sin(2 * np.pi * frequency * t)).astype(np.int16)


def write(path, samples, rate=8000, width=2):
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1 if samples.ndim == 1 else samples.shape[1])
        file.setsampwidth(width)
        file.setframerate(rate)
        if width == 1:
            file.writeframes((samples // 256 + 128).astype(np.uint8).tobytes())
        else:
            wide = samples.astype("<i4").reshape(-1, 1) << (8 * (width - 2))
            file.writeframes(wide.view(np.uint8)[:, :width].tobytes())


def test_long_recordings_are_cropped_and_short_ones_followed_by_silence():
    long = np.arange(1200, dtype=np.int16)
    np.testing.assert_array_equal(SMALL.read(long, None), long[100:1100])
    crops = {int(SMALL.read(long, np.random.default_rng(i))[0]) for i in range(20)}
    assert len(crops) > 10 and max(crops) <= 200
    short = SMALL.read(np.ones(300, np.int16), None)
    assert short.shape == (1000,) and (short[:300] == 1).all() and not short[300:].any()
    stereo = np.stack([np.full(1000, 4), np.full(1000, 8)], axis=1).astype(np.int16)
    assert (SMALL.read(stereo, None) == 6).all()
    with pytest.raises(ValueError, match="int16"):
        SMALL.read(np.zeros(10, np.float32), None)


def test_rates():
    x = sound(2000, rate=16000)
    with pytest.raises(UserError, match="16000 samples per second but data.inputs wants 8000"):
        SMALL.read(Recording(x, 16000), None)
    converted = LogMel(**{**vars(SMALL), "resample": True}).read(Recording(x, 16000), None)
    error = converted[50:-50].astype(float) - sound(1000)[50:-50]
    assert np.abs(error).max() < 80  # 1 % of the amplitude
    np.testing.assert_array_equal(SMALL.read(Recording(x, 8000), None), x[500:1500])


def test_view_is_the_standardised_spectrogram():
    # Noise, since the weak bands of a pure tone are rounding errors of the strong one.
    noise = np.random.default_rng(0).normal(scale=300, size=(2, 1000))
    x = np.stack([sound(1000), sound(1000, frequency=1500.0)]) + noise.astype(np.int16)
    view = jax.jit(SMALL.normalise)(x)
    energies = log_mel(jnp.asarray(x, jnp.float32) / 32768, 8000, 16)
    assert energies.shape == (2, 11, 16) and view.shape == (2, 12, 16, 1)
    np.testing.assert_allclose(view[:, :11, :, 0], (energies + 5) / 2, rtol=1e-5, atol=5e-5)
    np.testing.assert_allclose(view[:, 11], 2.5)  # zeros follow, as in the reference
    assert (SMALL.size, SMALL.channels) == ((12, 16), 1)
    np.testing.assert_array_equal(SMALL.raw(x), np.asarray(view).reshape(2, -1))

    sequence = LogMel(**{**vars(SMALL), "axes": 1, "frames": None})
    assert (sequence.size, sequence.channels) == ((11,), 16)
    np.testing.assert_allclose(sequence.normalise(x), view[:, :11, :, 0], rtol=1e-5, atol=5e-5)
    longer = sequence.normalise(np.pad(x, ((0, 0), (0, 800))))
    assert longer.shape == (2, 21, 16)


def test_waveforms():
    x = np.stack([sound(640), 3 * sound(640, frequency=700.0)])
    plain = Waveform(samples=640, rate=8000).normalise(x)
    np.testing.assert_allclose(plain[..., 0], x / 32768, atol=1e-7)
    view = np.asarray(Waveform(samples=640, rate=8000, standardise=True).normalise(x))
    np.testing.assert_allclose(view.mean(axis=1), 0, atol=1e-5)
    np.testing.assert_allclose(view.std(axis=1), 1, atol=1e-3)
    assert Waveform(samples=640, rate=8000).raw(x).shape == (2, 6 * 40)


def test_roll_and_gain():
    x = np.stack([np.arange(1, 1001)] * 8).astype(np.int16)
    assert SMALL.on_device(jax.random.key(0), x) is x
    moving = LogMel(**{**vars(SMALL), "roll": True, "gain": True})
    y = np.asarray(jax.jit(moving.on_device)(jax.random.key(0), x))
    gains, starts = y.max(axis=1) / 1000, y.argmin(axis=1)
    assert len(set(starts)) == 8 and (gains > 0.5).all() and (gains < 1.5).all()
    for row, start, gain in zip(y, starts, gains, strict=True):
        np.testing.assert_allclose(np.roll(row, -start) / gain, x[0], rtol=1e-4)


def test_refused_arguments():
    with pytest.raises(UserError, match="199 samples is shorter than one window of 200"):
        LogMel(samples=199, rate=8000)
    with pytest.raises(UserError, match="window must be one of"):
        LogMel(window="hann")
    with pytest.raises(UserError, match="axes of data.LogMel is 1 or 2"):
        LogMel(axes=3)
    with pytest.raises(UserError, match="have to be positive"):
        LogMel(std=0.0)
    with pytest.raises(UserError, match="both have to be positive"):
        Waveform(samples=0)


def test_users_arrays():
    SMALL.accept(np.zeros((2, 1600), np.int16))
    with pytest.raises(UserError, match=r"shape \[B, T\]"):
        SMALL.accept(np.zeros((2, 1600, 1), np.int16))
    with pytest.raises(UserError, match="multiply samples"):
        SMALL.accept(np.full((2, 1600), 0.5, np.float32))
    with pytest.raises(UserError, match="150 samples is shorter than one window of 200"):
        SMALL.accept(np.zeros((2, 150), np.int16))


def test_folder(tmp_path):
    for split, count in (("train", 3), ("test", 1)):
        for label in ("no", "yes"):
            for i in range(count):
                write(tmp_path / split / label / f"{i}.wav", sound(500 + i))
    write(tmp_path / "train" / ".hidden" / "0.wav", sound(10))
    records = pickle.loads(pickle.dumps(AudioFolder(str(tmp_path)).open("train")))
    assert (len(records), records.num_classes, records.label_names) == (6, 2, ("no", "yes"))
    record = records[4]
    assert record["label"] == 1 and record["audio"].rate == 8000
    np.testing.assert_array_equal(record["audio"].samples[:, 0], sound(501))
    assert records.describe(4).endswith("train/yes/1.wav")
    assert len(AudioFolder(str(tmp_path)).open("all")) == 8
    assert AudioFolder(str(tmp_path / "train" / "no")).open("all").num_classes is None
    with pytest.raises(UserError, match="no split 'tst'; did you mean 'test'"):
        AudioFolder(str(tmp_path)).open("tst")


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_sample_widths_and_channels(tmp_path, width):
    x = np.stack([sound(64), -sound(64)], axis=1)
    write(tmp_path / "a.wav", x, width=width)
    read = AudioFolder(str(tmp_path)).open("all")[0]["audio"].samples
    assert read.dtype == np.int16 and read.shape == (64, 2)
    np.testing.assert_allclose(read, x, atol=256 if width == 1 else 0)


def test_folder_refusals(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="no folder"):
        AudioFolder(str(tmp_path / "none")).open("all")
    with pytest.raises(UserError, match="holds no sounds"):
        AudioFolder(str(tmp_path)).open("all")
    (tmp_path / "a.flac").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(UserError, match="need soundfile, which is not installed"):
        AudioFolder(str(tmp_path)).open("all")
    (tmp_path / "a.flac").unlink()
    write(tmp_path / "b.wav", sound(64))
    data = bytearray((tmp_path / "b.wav").read_bytes())
    data[20] = 3  # floating point
    (tmp_path / "b.wav").write_bytes(data)
    with pytest.raises(UserError, match="need soundfile"):
        AudioFolder(str(tmp_path)).open("all")[0]
    (tmp_path / "b.wav").write_bytes(b"RIFF")
    with pytest.raises((wave.Error, EOFError)):
        AudioFolder(str(tmp_path)).open("all")[0]


def test_tones_of_digits_look_like_the_digits():
    records = DigitTones().open("test")
    record = records[0]
    assert record["audio"].shape == (2048,) and record["audio"].dtype == np.int16
    image = records.digits[0]["image"][:, :, 0] / 255
    loudness = np.abs(record["audio"].astype(float)).reshape(8, 256).mean(axis=1)
    assert np.corrcoef(loudness, image.sum(axis=0))[0, 1] > 0.9
    assert (len(records), records.num_classes) == (355, 10)


def test_batches():
    audio = LogMel(samples=2048, rate=8000, mels=16, frames=None)
    with eval_batches(DigitTones().open("test"), {"audio": audio}, batch_size=4) as batches:
        batch = next(batches)
    assert batch["audio"].shape == (4, 2048) and batch["audio"].dtype == np.int16
    assert batch["_mask"].all() and (batch["label"] >= 0).all()
    with train_batches(
        DigitTones().open("test"), {"audio": audio}, batch_size=4, seed=0
    ) as batches:
        assert next(batches)["audio"].any()

"""Sounds as an input: waveforms of one length, seen as samples or as log-mel spectrograms."""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from maskjax.errors import UserError
from maskjax.tokens.spectrogram import FLOOR, WINDOWS, frame_count, in_samples, log_mel

FULL_SCALE = 32768.0  # int16 samples are divided by it


class Recording(NamedTuple):
    """A sound whose rate is known; sources may also give the samples alone.

    Attributes:
      samples: int16 [T] or [T, channels].
      rate: samples per second.
    """

    samples: np.ndarray
    rate: int


@dataclasses.dataclass(frozen=True)
class _Sound:
    """What the inputs of sounds share; batches hold int16 [B, samples].

    Longer recordings are cropped, at random in training and to their centre in evaluation; shorter
    ones are followed by silence. Several channels are averaged.
    """

    samples: int = 160_000
    rate: int = 16_000
    resample: bool = False
    roll: bool = False
    gain: bool = False
    optional: bool = False

    view = "spectrogram"
    dtype = np.dtype(np.int16)

    def __post_init__(self) -> None:
        if self.samples < 1 or self.rate < 1:
            raise UserError(
                f"A sound of {self.samples} samples at {self.rate} a second: both have to be "
                "positive."
            )

    def shape(self, train: bool) -> tuple[int, ...]:
        """Returns (samples,)."""
        del train
        return (self.samples,)

    def read(self, value: Any, rng: np.random.Generator | None) -> np.ndarray:
        """A `Recording` or int16 [T] or [T, channels] -> int16 [samples].

        Raises:
          UserError: a recording at another rate, which may not be resampled.
          ValueError: no samples, or of another type.
        """
        x = np.asarray(value.samples if isinstance(value, Recording) else value)
        if x.dtype != np.int16 or x.ndim not in (1, 2) or not x.size:
            found = f"{x.dtype} {x.shape}"
            raise ValueError(f"a sound has to be int16 [T] or [T, channels], not {found}")
        if x.ndim == 2:
            x = np.round(x.mean(axis=1)).astype(np.int16)
        if isinstance(value, Recording) and value.rate != self.rate:
            x = self._resampled(x, value.rate)
        spare = len(x) - self.samples
        if spare > 0:
            start = spare // 2 if rng is None else int(rng.integers(0, spare + 1))
            return x[start : start + self.samples]
        return np.pad(x, (0, -spare))

    def _resampled(self, x: np.ndarray, rate: int) -> np.ndarray:
        if not self.resample:
            raise UserError(
                f"A recording has {rate} samples per second but data.inputs wants {self.rate}: set "
                f"the input's rate to {rate}, or resample=True to convert while reading."
            )
        from scipy.signal import resample_poly

        divisor = np.gcd(self.rate, rate)
        y = resample_poly(x.astype(np.float64), self.rate // divisor, rate // divisor)
        return np.clip(np.round(y), -32768, 32767).astype(np.int16)

    def on_device(self, rng: jax.Array, values: jax.Array) -> jax.Array:
        """Rolls and amplifies, if so set: [B, T] -> float32 [B, T] in the units of int16."""
        if not (self.roll or self.gain):
            return values
        roll_rng, gain_rng = jax.random.split(rng)
        count, length = values.shape
        values = values.astype(jnp.float32)
        if self.roll:
            steps = jax.random.randint(roll_rng, (count,), 0, length)
            values = jax.vmap(jnp.roll)(values, steps)
        if self.gain:
            factors = 0.5 + jax.random.beta(gain_rng, 10.0, 10.0, (count,))
            values = values * factors[:, None]
        return values

    def accept(self, values: Any) -> None:
        """Wants [B, T] in the units of int16, T at least one window."""
        if values.ndim != 2:
            raise UserError(f"Sounds have the shape [B, T] here, not {tuple(values.shape)}.")
        floating = jnp.issubdtype(values.dtype, jnp.floating)
        if floating and values.size and float(abs(values).max()) <= 1.0:
            raise UserError(
                "Sounds are in the units of int16 here, -32768 to 32767: multiply samples in "
                "[-1, 1] by 32768."
            )
        if values.shape[1] < self._shortest:
            raise UserError(
                f"A sound of {values.shape[1]} samples is shorter than one window of "
                f"{self._shortest}: give longer ones."
            )

    @property
    def _shortest(self) -> int:
        return 1


@dataclasses.dataclass(frozen=True)
class LogMel(_Sound):
    """Log-mel spectrograms, computed on the device from int16 samples, with Kaldi's conventions.

    Low frequencies first. Samples are scaled to [-1, 1]; energies are per frame, in logarithms to
    the base e. The defaults are Audio-MAE's (Huang et al., 2022) for AudioSet, up to `roll` and
    `gain`, which it uses in training.

    Attributes:
      samples: of the waveforms in a batch.
      rate: samples per second.
      mels: number of bands.
      frames: number of frames: spectrograms are cut, or zeros follow before normalisation, as the
        reference has it; None: as many as the samples give.
      length: of a frame, in milliseconds.
      shift: from one frame to the next, in milliseconds.
      window: "hanning", "povey" or "hamming".
      low: lowest frequency in Hz.
      high: highest; 0: half the rate.
      floor: least energy, below which nothing is told apart.
      mean: subtracted from the logarithms.
      std: divides them. Audio-MAE takes twice the standard deviation.
      axes: 2: a picture [frames, mels] of one channel; 1: a sequence [frames] whose channels are
        the bands, for speech encoders.
      resample: whether recordings at other rates are converted; else they are refused.
      roll: whether training waveforms are rolled around by a random number of samples.
      gain: whether they are multiplied by 0.5 + Beta(10, 10).
      optional: whether records may lack it.

    Raises:
      UserError: values that do not fit together.
    """

    mels: int = 128
    frames: int | None = 1024
    length: float = 25.0
    shift: float = 10.0
    window: str = "hanning"
    low: float = 20.0
    high: float = 0.0
    floor: float = FLOOR
    mean: float = -4.2677393
    std: float = 9.1379948
    axes: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.window not in WINDOWS:
            raise UserError(f"window must be one of {', '.join(WINDOWS)}, not '{self.window}'.")
        if self.axes not in (1, 2):
            raise UserError(f"axes of data.LogMel is 1 or 2, not {self.axes}.")
        if min(self.std, self.shift, self.mels) <= 0:
            raise UserError("std, shift and mels of data.LogMel have to be positive.")
        if self.samples < self._shortest:
            raise UserError(
                f"A waveform of {self.samples} samples is shorter than one window of "
                f"{self._shortest} ({self.length} ms at {self.rate} Hz): set samples of "
                "data.LogMel to more."
            )

    @property
    def size(self) -> tuple[int, ...]:
        """(frames, mels), or (frames,) with `axes=1`."""
        shift = in_samples(self.shift, self.rate)
        frames = self.frames or frame_count(self.samples, self._shortest, shift)
        return (frames, self.mels)[: self.axes]

    @property
    def channels(self) -> int:
        """1, or the number of bands with `axes=1`."""
        return 1 if self.axes == 2 else self.mels

    @property
    def zero(self) -> float:
        """What stands in the view where the logarithm is 0, e.g. behind a short recording."""
        return -self.mean / self.std

    def normalise(self, values: jax.Array) -> jax.Array:
        """[B, T] in the units of int16 -> standardised log-mel, float32 [B, *size, channels].

        Waveforms of other lengths than `samples` give as many frames as they have.
        """
        waveform = jnp.asarray(values, jnp.float32) / FULL_SCALE
        options = (self.mels, self.length, self.shift, self.window, self.low, self.high, self.floor)
        x = log_mel(waveform, self.rate, *options)
        if self.frames is not None and values.shape[1] == self.samples:
            x = x[:, : self.frames]
            x = jnp.pad(x, ((0, 0), (0, self.frames - x.shape[1]), (0, 0)))
        x = (x - self.mean) / self.std
        return x[..., None] if self.axes == 2 else x

    def denormalise(self, view: jax.Array) -> jax.Array:
        """For pictures: three units below the mean are 0, three above it are 1."""
        return 0.5 + jnp.asarray(view, jnp.float32) / 6.0

    def raw(self, values: np.ndarray) -> np.ndarray:
        """[B, T] -> the standardised spectrogram, float32 [B, frames * mels]."""
        with jax.transfer_guard("allow"):
            return np.asarray(_view(self, values)).reshape(len(values), -1)

    @property
    def _shortest(self) -> int:
        return in_samples(self.length, self.rate)


@functools.partial(jax.jit, static_argnums=0)
def _view(spectrogram: LogMel, values: jax.Array) -> jax.Array:
    """Compiled once for equal inputs, whoever asks."""
    return spectrogram.normalise(values)


@dataclasses.dataclass(frozen=True)
class Waveform(_Sound):
    """The samples themselves, as the waveform front end of wav2vec 2.0 and HuBERT takes them.

    Attributes:
      samples: of the waveforms in a batch; a multiple of the encoder's stride of 320.
      rate: samples per second.
      standardise: whether each waveform is brought to mean 0 and variance 1 (the Large models), or
        only scaled to [-1, 1] (the Base models).
      resample, roll, gain, optional: as in `LogMel`.
    """

    standardise: bool = False

    channels = 1

    @property
    def size(self) -> tuple[int, ...]:
        """(samples,)."""
        return (self.samples,)

    def normalise(self, values: jax.Array) -> jax.Array:
        """[B, T] in the units of int16 -> float32 [B, T, 1]."""
        x = jnp.asarray(values, jnp.float32) / FULL_SCALE
        if self.standardise:
            mean, variance = x.mean(axis=1, keepdims=True), x.var(axis=1, keepdims=True)
            x = (x - mean) / jnp.sqrt(variance + 1e-5)
        return x[..., None]

    def denormalise(self, view: jax.Array) -> jax.Array:
        """For pictures: [-1, 1] -> [0, 1]; silence is 0.5."""
        return 0.5 + 0.5 * jnp.asarray(view, jnp.float32)

    def raw(self, values: np.ndarray) -> np.ndarray:
        """[B, T] -> log-mel energies of 40 bands, float32 [B, F]: samples alone tell nothing."""
        spectrogram = LogMel(self.samples, self.rate, mels=40, frames=None)
        return spectrogram.raw(values)

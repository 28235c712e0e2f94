"""Log-mel spectrograms and cepstra of waveforms, with Kaldi's conventions.

Kaldi (Povey et al., 2011) removes the mean of each frame, emphasises high frequencies, applies a
window, takes the power of the Fourier transform at the next power of two, and sums it in triangles
that are equally wide on the mel scale m(f) = 1127 ln(1 + f / 700). HuBERT, AST, Audio-MAE and BEATs
were trained on these features, the last three on the log-mel energies themselves.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from maskjax.errors import UserError

_MOST_PIECES = 32  # slices of which frames are put together

# Least energy in a band: the spacing of float32 at 1, as torchaudio has it.
FLOOR = float(np.finfo(np.float32).eps)

WINDOWS = {
    "povey": lambda phase: (0.5 - 0.5 * np.cos(phase)) ** 0.85,
    "hanning": lambda phase: 0.5 - 0.5 * np.cos(phase),
    "hamming": lambda phase: 0.54 - 0.46 * np.cos(phase),
}


def in_samples(milliseconds: float, rate: int) -> int:
    """Returns a duration in whole samples, rounded down."""
    return int(rate * milliseconds / 1000 + 1e-6)


def frame_count(samples: int, length: int, shift: int) -> int:
    """Returns the number of whole frames in a waveform; 0 if it is shorter than one."""
    return max(0, 1 + (samples - length) // shift)


def frames(waveform: jax.Array, length: int, shift: int) -> jax.Array:
    """Cuts [B, T] into overlapping frames [B, F, length], F = `frame_count`; the rest is left out.

    Raises:
      UserError: the waveform is shorter than one frame.
    """
    samples = waveform.shape[-1]
    count = frame_count(samples, length, shift)
    if not count:
        raise UserError(
            f"A waveform of {samples} samples is shorter than one frame of {length}: use longer "
            "recordings, or a shorter window."
        )
    piece = math.gcd(length, shift)
    if length // piece > _MOST_PIECES:
        starts = np.arange(count) * shift
        return waveform[:, starts[:, None] + np.arange(length)[None, :]]
    # Strided slices of pieces: accelerators gather single samples slowly.
    pieces = waveform[:, : samples // piece * piece].reshape(-1, samples // piece, piece)
    step = shift // piece
    end = (count - 1) * step + 1
    return jnp.concatenate([pieces[:, i : i + end : step] for i in range(length // piece)], axis=-1)


def power_spectrum(
    waveform: jax.Array, length: int, shift: int, window: str, preemphasis: float = 0.97
) -> jax.Array:
    """Returns the power of every frame, [B, F, 1 + n / 2], n the power of two from `length` on.

    Args:
      waveform: float [B, T].
      length: samples of a frame.
      shift: samples from one frame to the next.
      window: a name of `WINDOWS`.
      preemphasis: a of y[t] = x[t] - a x[t - 1]; the sample before a frame is its first.
    """
    if window not in WINDOWS:
        raise UserError(f"window must be one of {', '.join(WINDOWS)}, not '{window}'.")
    x = frames(jnp.asarray(waveform, jnp.float32), length, shift)
    x = x - x.mean(axis=-1, keepdims=True)
    x = x - preemphasis * jnp.concatenate([x[..., :1], x[..., :-1]], axis=-1)
    shape = WINDOWS[window](2 * math.pi * np.arange(length) / (length - 1))
    x = x * jnp.asarray(shape, jnp.float32)[None, None, :]
    spectrum = jnp.fft.rfft(x, n=fft_size(length))
    return spectrum.real**2 + spectrum.imag**2


def fft_size(length: int) -> int:
    """Returns the smallest power of two that is not less than `length`."""
    return 1 << (length - 1).bit_length()


def to_mel(hertz: float | np.ndarray) -> np.ndarray:
    """Returns m = 1127 ln(1 + f / 700)."""
    return 1127.0 * np.log1p(np.asarray(hertz, np.float64) / 700.0)


@functools.cache
def mel_bank(mels: int, fft: int, rate: int, low: float = 20.0, high: float = 0.0) -> np.ndarray:
    """Returns triangles on the mel scale, float32 [1 + fft / 2, mels].

    With many bands, low ones may hold no frequency of the transform: they are zero everywhere.

    Args:
      mels: number of bands.
      fft: size of the Fourier transform.
      rate: samples per second.
      low: frequency in Hz where the first triangle begins.
      high: where the last one ends; 0 or less: so much below half the rate.

    Raises:
      UserError: the frequencies are not in order.
    """
    high = high if high > 0 else rate / 2 + high
    if not 0 <= low < high <= rate / 2:
        raise UserError(
            f"Bands from {low} to {high} Hz do not fit a rate of {rate}: give low < high <= "
            f"{rate / 2}."
        )
    edges = np.linspace(to_mel(low), to_mel(high), mels + 2)[None, :]
    bins = to_mel(np.arange(fft // 2 + 1) * rate / fft)[:, None]
    rising = (bins - edges[:, :-2]) / (edges[:, 1:-1] - edges[:, :-2])
    falling = (edges[:, 2:] - bins) / (edges[:, 2:] - edges[:, 1:-1])
    bank = np.maximum(0.0, np.minimum(rising, falling))
    bank[-1] = 0.0  # Kaldi leaves out the last frequency, half the rate
    return bank.astype(np.float32)


def log_mel(
    waveform: jax.Array,
    rate: int,
    mels: int = 80,
    length: float = 25.0,
    shift: float = 10.0,
    window: str = "povey",
    low: float = 20.0,
    high: float = 0.0,
    floor: float = FLOOR,
) -> jax.Array:
    """Returns logarithms (base e) of the energy in mel bands, float32 [B, F, mels].

    Args:
      waveform: float [B, T].
      rate: samples per second.
      mels: number of bands.
      length: of a frame, in milliseconds.
      shift: from one frame to the next, in milliseconds.
      window: "povey" (Kaldi's default; BEATs, HuBERT's MFCC), "hanning" (AST, Audio-MAE) or
        "hamming".
      low: lowest frequency in Hz.
      high: highest frequency; 0: half the rate.
      floor: least energy, below which nothing is told apart.
    """
    samples = in_samples(length, rate)
    power = power_spectrum(waveform, samples, in_samples(shift, rate), window)
    bank = jnp.asarray(mel_bank(mels, fft_size(samples), rate, low, high))
    # Full precision: the fast modes of accelerators would blur weak bands beside strong ones.
    energy = jnp.matmul(power, bank, precision=jax.lax.Precision.HIGHEST)
    return jnp.log(jnp.maximum(energy, floor))


def cepstrum(spectrum: jax.Array, coefficients: int = 13, lifter: float = 22.0) -> jax.Array:
    """Returns the first cosine coefficients of log-mel frames, [..., mels] -> [..., coefficients].

    The transform is the orthonormal DCT-II; coefficient i is multiplied by
    1 + lifter / 2 sin(pi i / lifter), which brings the higher ones to a like scale.
    """
    mels = spectrum.shape[-1]
    if not 0 < coefficients <= mels:
        raise UserError(f"{mels} mel bands have 1 to {mels} cepstral coefficients.")
    k = np.arange(coefficients)
    matrix = np.cos(math.pi * (np.arange(mels)[:, None] + 0.5) * k[None, :] / mels)
    matrix *= np.where(k == 0, 1.0, math.sqrt(2.0))[None, :] / math.sqrt(mels)
    if lifter:
        matrix *= (1 + 0.5 * lifter * np.sin(math.pi * k / lifter))[None, :]
    return jnp.matmul(
        spectrum, jnp.asarray(matrix, jnp.float32), precision=jax.lax.Precision.HIGHEST
    )


def mfcc(waveform: jax.Array, rate: int, coefficients: int = 13, mels: int = 23) -> jax.Array:
    """Returns mel-frequency cepstral coefficients [B, F, coefficients], 25 ms every 10 ms."""
    return cepstrum(log_mel(waveform, rate, mels), coefficients)


def deltas(x: jax.Array, reach: int = 2) -> jax.Array:
    """Returns the slope of every feature over time by least squares, [B, F, C] -> [B, F, C].

    d[t] = sum_n n (x[t + n] - x[t - n]) / (2 sum_n n^2), n = 1 to `reach`; the border repeats.
    """
    count = x.shape[1]
    padded = jnp.pad(x, ((0, 0), (reach, reach), (0, 0)), mode="edge")
    total: Any = sum(
        n * (padded[:, reach + n : reach + n + count] - padded[:, reach - n : reach - n + count])
        for n in range(1, reach + 1)
    )
    return total / (2 * sum(n * n for n in range(1, reach + 1)))


def with_deltas(x: jax.Array) -> jax.Array:
    """Appends first and second slopes: [B, F, C] -> [B, F, 3 C] (39 values of 13, as in HuBERT)."""
    first = deltas(x)
    return jnp.concatenate([x, first, deltas(first)], axis=-1)

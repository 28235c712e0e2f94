"""Numbers of clusters as the target: k-means codes (HuBERT) and random ones (BEATs, BEST-RQ)."""

import dataclasses
import functools
import os
import zipfile
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from maskjax.errors import UserError
from maskjax.paths import get_path
from maskjax.tokens import TokenGrid, unpatchify
from maskjax.tokens.spectrogram import cepstrum, mfcc, with_deltas

_SHIFT = 0.010  # seconds between the frames of cepstra


def nearest_code(x: jax.Array, centroids: jax.Array) -> jax.Array:
    """Returns the number of the nearest centroid: [..., F] and [K, F] -> int32 [...]."""
    x, centroids = x.astype(jnp.float32), centroids.astype(jnp.float32)
    # Full precision: the fast modes of accelerators would change codes.
    products = jnp.matmul(x, centroids.T, precision=jax.lax.Precision.HIGHEST)
    squares = (centroids**2).sum(axis=-1).reshape((1,) * (x.ndim - 1) + (-1,))
    return jnp.argmax(products - 0.5 * squares, axis=-1).astype(jnp.int32)


def cepstra_of_tokens(
    patches: jax.Array, grid: TokenGrid, coefficients: int = 13, rate: int = 16_000
) -> jax.Array:
    """Returns cepstral coefficients with first and second slopes at the start of every token.

    Of log-mel tokens they are computed from the bands as they are; their mean and scale change
    coefficients of order 0 and the unit, which k-means does not mind. Of a waveform they are
    Kaldi's.

    Args:
      patches: [B, N, P]; tokens along time alone, of log-mel frames (a channel for each band) or
        of samples (one channel).
      grid: their geometry.
      coefficients: C.
      rate: of a waveform, in samples per second.

    Returns:
      float32 [B, N, 3 C].
    """
    view = unpatchify(patches.astype(jnp.float32), grid)
    starts = np.arange(grid.num_tokens) * grid.patch[0]
    if grid.channels > 1:
        x = cepstrum(view, coefficients)
    else:
        x = mfcc(view[..., 0], rate, coefficients)
        starts = (starts / (rate * _SHIFT)).astype(int)
    x = with_deltas(x)
    return x[:, np.minimum(starts, x.shape[1] - 1)]


@dataclasses.dataclass(frozen=True)
class Codes:
    """Codes that a teacher gives, such as those of an image tokenizer (BEiT: Bao et al., 2022).

    Attributes:
      path: of the codes in the outputs, int [B, N].
      vocabulary: how many codes there are: a logit for each.
    """

    path: str = "teachers.codes.codes"
    vocabulary: int = 1024

    def check(self, grid: TokenGrid) -> None:
        """Any grid will do; whether the path exists is seen in the first pass."""

    def size(self, grid: TokenGrid) -> int:
        """Returns V: a logit for each code."""
        del grid
        return self.vocabulary

    def __call__(self, out: Mapping[str, Any], grid: TokenGrid) -> jax.Array:
        """Returns the code of every token, int32 [B, N].

        Raises:
          UserError: no such path, or something else than one integer for each token.
        """
        codes = get_path(out, self.path)
        if codes.shape[1:] != (grid.num_tokens,) or not jnp.issubdtype(codes.dtype, jnp.integer):
            raise UserError(
                f"'{self.path}' has the shape {codes.shape} and the type {codes.dtype}, but a "
                f"target needs one code for each of the {grid.num_tokens} tokens."
            )
        return codes


@dataclasses.dataclass(frozen=True)
class KMeansCodes:
    """The nearest of K centroids, fitted by `python -m maskjax.codes --config=... --out=PATH`.

    Attributes:
      path: of the .npz file that the command wrote.
      clusters: K, the number of codes.
      features: what is compared: "mfcc" (13 cepstral coefficients with slopes, HuBERT's first
        iteration), or a path in the outputs, e.g. "patches" or, for the second iteration,
        "teachers.before.blocks.5" with the run of the first as a frozen teacher.
      coefficients: of the cepstra.
      rate: samples per second, where the tokens are samples.
    """

    path: str
    clusters: int = 100
    features: str = "mfcc"
    coefficients: int = 13
    rate: int = 16_000

    def check(self, grid: TokenGrid) -> None:
        """Refuses a file that is not there or is of other features, and tokens without cepstra."""
        self.check_features(grid)
        width = self.centroids.shape[1]
        if self.features == "mfcc" and width != 3 * self.coefficients:
            raise UserError(
                f"The codes in '{self.path}' are of {width} features but {self.coefficients} "
                f"coefficients with slopes are {3 * self.coefficients}: fit them anew with "
                "`python -m maskjax.codes`."
            )

    def check_features(self, grid: TokenGrid) -> None:
        """Refuses tokens that have no such features; needs no file."""
        if self.clusters < 2:
            raise UserError(f"targets.KMeansCodes needs 2 clusters or more, not {self.clusters}.")
        if self.features == "mfcc" and len(grid.shape) != 1:
            raise UserError(
                f"Cepstra need tokens along time alone, but these have {len(grid.shape)} axes: set "
                "axes=1 of data.LogMel, or the target's features to 'patches'."
            )

    def size(self, grid: TokenGrid) -> int:
        """Returns K: a logit for each code."""
        del grid
        return self.clusters

    def extract(self, out: Mapping[str, Any], grid: TokenGrid) -> jax.Array:
        """Returns the features of every token, float32 [B, N, F].

        Raises:
          UserError: the path does not exist or has not one vector for each token.
        """
        if self.features == "mfcc":
            return cepstra_of_tokens(out["patches"], grid, self.coefficients, self.rate)
        x = get_path(out, self.features)
        if x.ndim == 3 and x.shape[1] == grid.num_tokens + 1:
            x = x[:, 1:]  # the class token
        if x.ndim != 3 or x.shape[1] != grid.num_tokens:
            raise UserError(
                f"'{self.features}' has the shape {x.shape}, but codes need one vector for each of "
                f"the {grid.num_tokens} tokens."
            )
        return x.astype(jnp.float32)

    def __call__(self, out: Mapping[str, Any], grid: TokenGrid) -> jax.Array:
        """Returns the code of every token, int32 [B, N]."""
        x = self.extract(out, grid)
        if x.shape[-1] != self.centroids.shape[1]:
            raise UserError(
                f"The codes in '{self.path}' are of {self.centroids.shape[1]} features but "
                f"'{self.features}' has {x.shape[-1]}: fit them anew with `python -m "
                "maskjax.codes`, or correct the target's path."
            )
        return nearest_code(x, jnp.asarray(self.centroids))

    @functools.cached_property
    def centroids(self) -> np.ndarray:
        """float32 [K, F], from the file."""
        fit = "fit them with `python -m maskjax.codes --config=CONFIG --out=FILE.npz`"
        if not os.path.isfile(os.path.expanduser(self.path)):
            raise UserError(f"There is no file '{self.path}' with k-means codes: {fit}.")
        try:
            with np.load(os.path.expanduser(self.path), allow_pickle=False) as file:
                centroids, features = file["centroids"], str(file["features"])
        except (ValueError, KeyError, OSError, zipfile.BadZipFile):
            raise UserError(f"'{self.path}' holds no k-means codes: {fit}.") from None
        if features != self.features:
            raise UserError(
                f"The codes in '{self.path}' are of '{features}', the target says "
                f"'{self.features}': correct the one or {fit}."
            )
        if len(centroids) != self.clusters:
            raise UserError(
                f"'{self.path}' has {len(centroids)} codes, the target {self.clusters}: set the "
                f"target's clusters to {len(centroids)}, or {fit}."
            )
        return centroids.astype(np.float32)


@dataclasses.dataclass(frozen=True)
class RandomCodes:
    """The nearest of K random vectors to a random projection of the patch; nothing is fitted.

    The projection is Xavier-normal, its result is brought to mean 0 and variance 1 per token, the
    codes are standard normal (BEATs' first iteration: Chen et al., 2022; after BEST-RQ: Chiu et
    al., 2022). They depend on `seed` and the size of a patch alone.

    Attributes:
      clusters: K, the number of codes.
      width: of the projection.
      seed: of the draws.
    """

    clusters: int = 1024
    width: int = 256
    seed: int = 0

    def check(self, grid: TokenGrid) -> None:
        """Refuses a choice of one."""
        del grid
        if self.clusters < 2:
            raise UserError(f"targets.RandomCodes needs 2 clusters or more, not {self.clusters}.")

    def size(self, grid: TokenGrid) -> int:
        """Returns K: a logit for each code."""
        del grid
        return self.clusters

    def __call__(self, out: Mapping[str, Any], grid: TokenGrid) -> jax.Array:
        """Returns the code of every token, int32 [B, N]."""
        values = grid.values_per_token
        rng = np.random.default_rng(self.seed)
        spread = np.sqrt(2.0 / (values + self.width))
        projection = spread * rng.standard_normal((values, self.width), np.float32)
        codes = rng.standard_normal((self.clusters, self.width), np.float32)
        x = jnp.matmul(
            out["patches"].astype(jnp.float32), projection, precision=jax.lax.Precision.HIGHEST
        )
        mean, variance = x.mean(axis=-1, keepdims=True), x.var(axis=-1, keepdims=True)
        return nearest_code((x - mean) / jnp.sqrt(variance + 1e-5), jnp.asarray(codes))

"""Audio-MAE's decoder with local attention (Huang et al., 2022; Swin V2: Liu et al., 2022).

Neighbours in a spectrogram tell more about a hidden patch than far ones do, so that the decoder
attends within small windows. Every other block shifts the windows in time.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from maskjax.errors import UserError
from maskjax.masking import Mask
from maskjax.models.layers import MLP, Dense, layer_norm, unit_vectors, xavier
from maskjax.models.precision import compute_dtype
from maskjax.models.stack import Stack
from maskjax.parallel.sharding import constrain_batch, constrain_tensor
from maskjax.tokens import TokenGrid, restore_order, sincos_2d

_META_WIDTH = 384  # of the network that gives the position bias
_LEAST_TEMPERATURE = 0.01


def window_order(
    shape: tuple[int, int], window: tuple[int, int], shift: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Returns which tokens a window holds, and which of them see each other.

    The grid is moved by `shift` to the left and top, cyclically, and cut into windows. Tokens that
    the cycle brought together from opposite borders do not see each other.

    Returns:
      int [W, L], raster indices of the L tokens of each window; bool [W, L, L].
    """
    places = np.arange(shape[0] * shape[1]).reshape(shape)
    # A token's region: 0, or 1 where it was carried around, along each axis.
    region = np.zeros(shape, int)
    for axis, (size, step) in enumerate(zip(shape, shift, strict=True)):
        region = 2 * region + np.expand_dims(np.arange(size) < step, 1 - axis)

    def windows(x: np.ndarray) -> np.ndarray:
        x = np.roll(x, [-s for s in shift], (0, 1))
        x = x.reshape(shape[0] // window[0], window[0], shape[1] // window[1], window[1])
        return x.transpose(0, 2, 1, 3).reshape(-1, window[0] * window[1])

    region = windows(np.broadcast_to(region, shape))
    return windows(places), region[:, :, None] == region[:, None, :]


def log_offsets(window: tuple[int, int]) -> np.ndarray:
    """Returns sign(d) log(1 + |d|) of the offsets between places of a window: float32 [L, L, 2]."""
    places = np.indices(window).reshape(2, -1).T
    offsets = (places[:, None, :] - places[None, :, :]).astype(np.float32)
    return np.sign(offsets) * np.log1p(np.abs(offsets))


class WindowAttention(nn.Module):
    """Cosine attention within windows, with a bias that a small network computes from offsets.

    logits = cos(q, k) / tau + bias, tau learned per head from 1 on.

    Attributes:
      heads: number of heads.
      shape: of the token grid.
      window: extent of a window; an axis that is shorter has one window.
      shift: movement of the windows.
      dtype: of the computation.
    """

    heads: int
    shape: tuple[int, int]
    window: tuple[int, int]
    shift: tuple[int, int]
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, N, D] -> [B, N, D]."""
        b, n, d = x.shape
        order, visible = window_order(self.shape, self.window, self.shift)
        length = order.shape[1]

        def project(name: str) -> jax.Array:
            y = Dense(d, kernel_init=xavier, dtype=self.dtype, name=name)(x)
            y = y[:, order.reshape(-1)].reshape(b, -1, length, self.heads, d // self.heads)
            return constrain_tensor(y, 3)

        q, k, v = project("query"), project("key"), project("value")
        tau = self.param("tau", nn.initializers.ones, (self.heads,))
        q = unit_vectors(q) / jnp.maximum(tau, _LEAST_TEMPERATURE)[None, None, None, :, None]
        q, k = q.astype(self.dtype), unit_vectors(k).astype(self.dtype)
        logits = jnp.einsum("bwqhc,bwkhc->bwhqk", q, k)
        logits = logits.astype(jnp.float32) + self._bias()[None, None, :, :, :]
        if any(self.shift):
            logits = jnp.where(jnp.asarray(visible)[None, :, None, :, :], logits, -jnp.inf)
        shares = jax.nn.softmax(logits, axis=-1).astype(self.dtype)
        y = jnp.einsum("bwhqk,bwkhc->bwqhc", shares, v).reshape(b, n, d)
        y = y[:, np.argsort(order.reshape(-1))]
        return Dense(d, kernel_init=xavier, dtype=self.dtype, name="out")(y)

    def _bias(self) -> jax.Array:
        """Returns what offsets add to the logits, float32 [heads, L, L]."""
        offsets = jnp.asarray(log_offsets(self.window))
        y = Dense(_META_WIDTH, kernel_init=xavier, name="offsets_up")(offsets)
        bias = Dense(self.heads, kernel_init=xavier, name="offsets_down")(jax.nn.relu(y))
        return bias.transpose(2, 0, 1)


class WindowBlock(nn.Module):
    """x + norm(attention(x)), x + norm(mlp(x)): the residual post-norm of Swin V2."""

    heads: int
    shape: tuple[int, int]
    window: tuple[int, int]
    shift: tuple[int, int]
    mlp_ratio: float = 4.0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, N, D] -> [B, N, D]."""
        x = constrain_batch(x)
        attention = WindowAttention(
            self.heads, self.shape, self.window, self.shift, self.dtype, name="attention"
        )
        x = x + layer_norm(self.dtype, "norm1")(attention(x))
        mlp = MLP(round(x.shape[-1] * self.mlp_ratio), self.dtype, name="mlp")
        return constrain_batch(x + layer_norm(self.dtype, "norm2")(mlp(x)))


class LocalDecoder(nn.Module):
    """Decoder with windowed attention over all positions, one learned token where masked.

    As `models.MAEDecoder`, but with `WindowBlock`s, and without the class token, which has no place
    in a window. The defaults are the paper's.

    Attributes:
      width: D.
      depth: number of blocks, even; every second is shifted.
      heads: attention heads.
      window: extent of a window in tokens, (time, frequency).
      shift: movement of the windows in every second block; the published code shifts in time only.
      mlp_ratio, scan, remat, dtype: as in `models.ViT`.
    """

    width: int = 512
    depth: int = 16
    heads: int = 16
    window: tuple[int, int] = (4, 4)
    shift: tuple[int, int] = (2, 0)
    mlp_ratio: float = 4.0
    scan: bool = False
    remat: str = "none"
    dtype: str = "auto"

    @nn.compact
    def __call__(
        self, tokens: jax.Array, grid: TokenGrid, mask: Mask, outputs: int
    ) -> dict[str, Any]:
        """Predicts `outputs` values for every position.

        Args:
          tokens: [B, 1 + K, E], the encoder's output, class token first (it is left out), then in
            the mask's order.
          grid: geometry of all N positions.
          mask: which positions the tokens belong to.
          outputs: values per token, e.g. `grid.values_per_token`.

        Returns:
          `embedded` [B, N, D], `blocks[i]` and `tokens` likewise, and `prediction`, float32
          [B, N, outputs] in raster order, at visible positions too.

        Raises:
          UserError: the grid has not two axes, or windows do not divide it.
        """
        dtype = compute_dtype(self.dtype)
        window, shift = self._fitted(grid)
        x = Dense(self.width, kernel_init=xavier, dtype=dtype, name="embed")(tokens[:, 1:])
        fill = self.param("mask_token", nn.initializers.normal(0.02), (self.width,)).astype(dtype)
        table = jnp.asarray(sincos_2d(grid.shape, self.width), dtype)
        embedded = restore_order(x, fill, mask.restore) + table[None, :, :]
        block = functools.partial(
            WindowBlock,
            self.heads,
            tuple(grid.shape),
            window,
            mlp_ratio=self.mlp_ratio,
            dtype=dtype,
            parent=None,
        )
        blocks = (block(shift=(0, 0)), block(shift=shift))
        x, blocks = Stack(blocks, self.depth, self.scan, self.remat, name="stack")(embedded)
        tokens = layer_norm(dtype, "norm")(x)
        prediction = Dense(outputs, kernel_init=xavier, dtype=dtype, name="head")(tokens)
        return {
            "embedded": embedded,
            "blocks": blocks,
            "tokens": tokens,
            "prediction": prediction.astype(jnp.float32),
        }

    def _fitted(self, grid: TokenGrid) -> tuple[tuple[int, int], tuple[int, int]]:
        """Returns window and shift for a grid; an axis no longer than a window is not shifted."""
        if len(grid.shape) != 2:
            raise UserError(f"A local decoder needs two axes of tokens, not {len(grid.shape)}.")
        if self.width % self.heads:
            raise UserError(f"A width of {self.width} is not divisible by {self.heads} heads.")
        pairs = list(zip(grid.shape, self.window, self.shift, strict=True))
        if any(size > extent and size % extent for size, extent, _ in pairs):
            raise UserError(
                f"Windows of {'x'.join(map(str, self.window))} tokens do not divide the "
                f"{'x'.join(map(str, grid.shape))} of the grid: change system.decoder.window."
            )
        height, width = (min(size, extent) for size, extent, _ in pairs)
        down, right = (0 if size <= extent else step for size, extent, step in pairs)
        return (height, width), (down, right)

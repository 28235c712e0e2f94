"""Transformer blocks that are conditioned by adaptive layer norm (DiT: Peebles & Xie, 2023)."""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from maskjax.models.attention import Attention
from maskjax.models.layers import MLP, Dense, layer_norm
from maskjax.models.stack import apply_block, run_stack, stacked_params
from maskjax.parallel.sharding import constrain_batch


def time_embedding(time: jax.Array, width: int) -> jax.Array:
    """Sine-cosine embedding of times; their largest wavelength is 2 pi 10000.

    Args:
      time: int or float [B].
      width: even, at least 4.

    Returns:
      float32 [B, width]: sin(t w_k) for k = 0 .. width/2 - 1, then cos;
      w_k = 10000^(-k / (width/2 - 1)), as in DDPM's code.
    """
    half = width // 2
    frequencies = jnp.exp(jnp.arange(half, dtype=jnp.float32) * (-math.log(10000) / (half - 1)))
    angles = time.astype(jnp.float32)[:, None] * frequencies[None, :]
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


class ConditionTrunk(nn.Module):
    """Two layers that turn an embedding into a condition: D -> 2 D -> SiLU -> D, in float32."""

    width: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, E] -> [B, width]."""
        x = nn.silu(Dense(2 * self.width, name="up")(x))
        return Dense(self.width, name="down")(x)


def modulate(x: jax.Array, shift: jax.Array, scale: jax.Array) -> jax.Array:
    """Returns x (1 + scale) + shift; x is [B, N, D], shift and scale are [B, D]."""
    return x * (1 + scale[:, None, :]) + shift[:, None, :]


class AdaLNBlock(nn.Module):
    """Pre-norm block whose branches are shifted, scaled and gated by a condition (adaLN-Zero).

    The modulation starts at zero: a fresh block is the identity.

    Attributes:
      heads: attention heads.
      mlp_ratio: hidden width of the MLP relative to D.
      dtype: of the computation.
      activation: of the MLP.
    """

    heads: int
    mlp_ratio: float = 4.0
    dtype: jnp.dtype = jnp.float32
    activation: str = "gelu_tanh"

    @nn.compact
    def __call__(self, x: jax.Array, condition: jax.Array) -> jax.Array:
        """Tokens [B, N, D] and condition [B, E] -> [B, N, D]."""
        x = constrain_batch(x)
        zeros = nn.initializers.zeros
        modulation = Dense(6 * x.shape[-1], kernel_init=zeros, dtype=self.dtype, name="modulation")(
            condition
        )
        shift1, scale1, gate1, shift2, scale2, gate2 = jnp.split(modulation, 6, axis=-1)
        y = modulate(layer_norm(self.dtype, "norm1")(x), shift1, scale1)
        y = Attention(self.heads, self.dtype, name="attention")(y)
        x = x + gate1[:, None, :] * y
        y = modulate(layer_norm(self.dtype, "norm2")(x), shift2, scale2)
        hidden = round(x.shape[-1] * self.mlp_ratio)
        y = MLP(hidden, self.dtype, self.activation, name="mlp")(y)
        return constrain_batch(x + gate2[:, None, :] * y)


class AdaLNTransformer(nn.Module):
    """A stack of `AdaLNBlock`s with stacked parameters; attributes as in `Transformer`."""

    depth: int
    heads: int
    mlp_ratio: float = 4.0
    scan: bool = False
    remat: str = "none"
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, condition: jax.Array) -> tuple[jax.Array, Any]:
        """[B, N, D] and [B, E] -> ([B, N, D], outputs of every block)."""
        block = AdaLNBlock(self.heads, self.mlp_ratio, self.dtype, parent=None)
        params = stacked_params(self, block, self.depth, x, condition)

        def step(x: jax.Array, block_params: Any, index: jax.Array) -> jax.Array:
            del index
            return apply_block(block, block_params, x, condition)

        return run_stack([step], params, x, scan=self.scan, remat=self.remat)

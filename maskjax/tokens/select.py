"""Choosing tokens by index, and putting them back."""

import jax
import jax.numpy as jnp


def take_tokens(tokens: jax.Array, indices: jax.Array) -> jax.Array:
    """Selects tokens per example: [B, N, ...] and int [B, K] -> [B, K, ...] in the order given."""
    indices = indices.reshape(indices.shape + (1,) * (tokens.ndim - 2))
    return jnp.take_along_axis(tokens, indices, axis=1)


def restore_order(kept: jax.Array, fill: jax.Array, restore: jax.Array) -> jax.Array:
    """Puts kept tokens back to their places and one vector everywhere else.

    Args:
      kept: [B, K, D] tokens in the order of `Mask.keep`.
      fill: [D] what stands at the masked places (the mask token).
      restore: int [B, N]: rank of each place in the order (kept, dropped).

    Returns:
      [B, N, D] in raster order.
    """
    k = kept.shape[1]
    placed = take_tokens(kept, jnp.minimum(restore, k - 1))
    return jnp.where(restore[:, :, None] < k, placed, fill[None, None, :])

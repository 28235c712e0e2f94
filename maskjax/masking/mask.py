"""The mask: which tokens a model sees."""

import flax.struct
import jax
import jax.numpy as jnp


@flax.struct.dataclass
class Mask:
    """Indices of kept and dropped tokens; 1 = masked, always. All counts are static.

    Attributes:
      keep: int32 [B, K], the visible tokens in the order in which the model sees them.
      drop: int32 [B, M], the masked tokens; K + M = N.
      restore: int32 [B, N], rank of token n in the sequence (keep, drop): the inverse permutation.
    """

    keep: jax.Array
    drop: jax.Array
    restore: jax.Array

    @property
    def is_masked(self) -> jax.Array:
        """bool [B, N] in raster order, True where the token is masked."""
        return self.restore >= self.keep.shape[-1]


def mask_from_scores(scores: jax.Array, keep: int) -> Mask:
    """Keeps the `keep` tokens of lowest score; ties go to the token that comes first.

    With uniform noise as the score this is MAE's random masking (He et al., 2022); the visible
    tokens stay in the order of their scores.

    Args:
      scores: float [B, N].
      keep: K, static, 0 < K <= N.
    """
    order = jnp.argsort(scores, axis=-1).astype(jnp.int32)
    return _from_order(order, keep)


def mask_from_indices(keep: jax.Array, num_tokens: int) -> Mask:
    """Builds the mask that keeps exactly the tokens given: int [B, K], distinct within a row."""
    keep = jnp.asarray(keep, jnp.int32)
    batch, k = keep.shape
    # Kept tokens rank by their place in the list, the others follow in raster order.
    scores = jnp.full((batch, num_tokens), k, jnp.int32)
    rows = jnp.arange(batch)[:, None]
    scores = scores.at[rows, keep].set(jnp.broadcast_to(jnp.arange(k, dtype=jnp.int32), keep.shape))
    return _from_order(jnp.argsort(scores, axis=-1).astype(jnp.int32), k)


def mask_from_hidden(hidden: jax.Array, keep: int) -> Mask:
    """Builds the mask of a map, visible and hidden tokens each in raster order.

    Args:
      hidden: bool [B, N], True = masked; every row has exactly N - `keep` of them.
      keep: K, static, 0 < K <= N.
    """
    return mask_from_scores(hidden.astype(jnp.int32), keep)


def nothing_masked(batch_size: int, num_tokens: int) -> Mask:
    """Returns the mask that keeps every token, in raster order."""
    every = jnp.broadcast_to(jnp.arange(num_tokens, dtype=jnp.int32), (batch_size, num_tokens))
    return Mask(keep=every, drop=every[:, :0], restore=every)


def _from_order(order: jax.Array, keep: int) -> Mask:
    restore = jnp.argsort(order, axis=-1).astype(jnp.int32)
    return Mask(keep=order[:, :keep], drop=order[:, keep:], restore=restore)

"""Relative position bias: learned logits of attention for every offset between two tokens."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from maskjax.errors import UserError
from maskjax.tokens import TokenGrid, relative_index


class RelativeBias(nn.Module):
    """A table [offsets, heads] of a network, or of one block (BEiT: Bao et al., 2022).

    Attributes:
      heads: attention heads.
      entries: number of offsets, `relative_entries`.
    """

    heads: int
    entries: int

    @nn.compact
    def __call__(self, offsets: jax.Array) -> jax.Array:
        """Returns the bias of the logits, float32, to be added for every head.

        Args:
          offsets: int [1 or B, S, S], which entry each pair of tokens reads.

        Returns:
          [1 or B, heads, S, S].
        """
        table = self.param("table", nn.initializers.zeros, (self.entries, self.heads))
        return table[offsets].transpose(0, 3, 1, 2)


def relative_offsets(
    grid: TokenGrid, trained: TokenGrid, class_token: bool, keep: jax.Array | None = None
) -> jax.Array:
    """Returns which entry of a table of relative positions each pair of tokens reads.

    Args:
      grid: geometry of the tokens.
      trained: the grid that the table belongs to.
      class_token: whether a class token comes first; it has three offsets of its own.
      keep: int [B, K], the tokens that are there; None: all N.

    Returns:
      int32 [1, S, S] with S = N, or [B, S, S] with S = K; one more for a class token.

    Raises:
      UserError: another grid than trained on, or not one of rows and columns.
    """
    if len(grid.shape) != 2 or grid.shape != trained.shape:
        raise UserError(
            "A relative position bias holds for the grid it was trained on, of rows and "
            f"columns: {'x'.join(map(str, trained.shape))} tokens here, not "
            f"{'x'.join(map(str, grid.shape))}."
        )
    index = jnp.asarray(relative_index(grid.shape, class_token))
    if keep is None:
        return index[None, :, :]
    if class_token:
        keep = jnp.pad(keep + 1, ((0, 0), (1, 0)))
    return index[keep[:, :, None], keep[:, None, :]]

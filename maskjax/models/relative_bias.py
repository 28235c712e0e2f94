"""Relative position bias: learned logits of attention for every offset between two tokens."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from maskjax.errors import UserError
from maskjax.tokens import TokenGrid, relative_entries, relative_index


class RelativeBias(nn.Module):
    """A table [offsets, heads] that all blocks of a network share (BEiT: Bao et al., 2022).

    Attributes:
      heads: attention heads.
      class_token: whether a class token comes first; it has three offsets of its own.
    """

    heads: int
    class_token: bool = True

    @nn.compact
    def __call__(
        self, grid: TokenGrid, trained: TokenGrid, keep: jax.Array | None = None
    ) -> jax.Array:
        """Returns the bias of the logits, float32, to be added for every head.

        Args:
          grid: geometry of the tokens.
          trained: the grid that the table belongs to.
          keep: int [B, K], the tokens that are there; None: all N.

        Returns:
          [1, heads, S, S] with S = N, or [B, heads, S, S] with S = K; one more for a class token.

        Raises:
          UserError: another grid than trained on, or not one of rows and columns.
        """
        if len(grid.shape) != 2 or grid.shape != trained.shape:
            raise UserError(
                "A relative position bias holds for the grid it was trained on, of rows and "
                f"columns: {'x'.join(map(str, trained.shape))} tokens here, not "
                f"{'x'.join(map(str, grid.shape))}."
            )
        entries = relative_entries(grid.shape, self.class_token)
        table = self.param("table", nn.initializers.zeros, (entries, self.heads))
        index = jnp.asarray(relative_index(grid.shape, self.class_token))[None, :, :]
        if keep is not None:
            if self.class_token:
                keep = jnp.pad(keep + 1, ((0, 0), (1, 0)))
            index = index[0][keep[:, :, None], keep[:, None, :]]
        return table[index].transpose(0, 3, 1, 2)

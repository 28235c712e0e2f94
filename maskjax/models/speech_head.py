"""Heads that predict codes of frames (HuBERT: Hsu et al., 2021, equation 3)."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from maskjax.errors import UserError
from maskjax.masking import Mask
from maskjax.models.layers import Dense, unit_vectors, xavier
from maskjax.models.precision import compute_dtype
from maskjax.tokens import TokenGrid


def cosine_logits(x: jax.Array, embeddings: jax.Array, temperature: float) -> jax.Array:
    """Returns cos(x, e_k) / temperature, float32 [..., K], of x [..., D] and e [K, D]."""
    x, embeddings = unit_vectors(x), unit_vectors(embeddings)
    products = jnp.matmul(x, embeddings.T, precision=jax.lax.Precision.HIGHEST)
    return products / temperature


class CodeHead(nn.Module):
    """Scores every code at every token; the decoder of masked speech.

    `scores="cosine"` projects a token to `width` and compares it with a learned embedding of each
    code; the projections of several sets of codes are not shared. `scores="linear"` is one layer.

    Attributes:
      scores: "cosine" (HuBERT) or "linear".
      width: of the projection and the code embeddings.
      temperature: that divides the cosines.
      codes: sizes of the sets of codes, where there are several (ensembles of k-means, or the
        layers of "multi-target" training); empty: one set, of as many as the target has.
      dtype: of the computation of the projection, see `compute_dtype`.
    """

    scores: str = "cosine"
    width: int = 256
    temperature: float = 0.1
    codes: tuple[int, ...] = ()
    dtype: str = "auto"

    @nn.compact
    def __call__(
        self, tokens: jax.Array, grid: TokenGrid, mask: Mask | None, outputs: int
    ) -> dict[str, Any]:
        """Scores the codes.

        Args:
          tokens: [B, N, E] at all positions, in raster order.
          grid: geometry of the tokens.
          mask: not used; every token is scored.
          outputs: number of codes of the first set.

        Returns:
          `prediction`: logits, float32 [B, N, outputs]; `sets`: the logits of every set, of which
          the first is `prediction`.

        Raises:
          UserError: unknown scores, or `codes` that do not begin with `outputs`.
        """
        del grid, mask
        if self.scores not in ("cosine", "linear"):
            raise UserError(f"scores of a code head are 'cosine' or 'linear', not '{self.scores}'.")
        sizes = tuple(self.codes) or (outputs,)
        if sizes[0] != outputs:
            raise UserError(
                f"The head's first set has {sizes[0]} codes but the first target {outputs}: "
                "correct system.decoder.codes."
            )
        sets = [self._scores(tokens, i, size) for i, size in enumerate(sizes)]
        return {"prediction": sets[0], "sets": sets}

    def _scores(self, tokens: jax.Array, i: int, size: int) -> jax.Array:
        width = self.width if self.scores == "cosine" else size
        dense = Dense(
            width, kernel_init=xavier, dtype=compute_dtype(self.dtype), name=f"project{i}"
        )
        x = dense(tokens)
        if self.scores == "linear":
            return x.astype(jnp.float32)
        embeddings = self.param(f"codes{i}", nn.initializers.uniform(1.0), (size, self.width))
        return cosine_logits(x, embeddings, self.temperature)

"""The decoder of HPM, which also foresees where its reconstruction will be poor."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from maskjax.masking import Mask
from maskjax.models.layers import Dense, layer_norm, xavier
from maskjax.models.mae_decoder import MAEDecoder
from maskjax.models.precision import compute_dtype
from maskjax.models.transformer import Transformer
from maskjax.tokens import TokenGrid, take_tokens


class HPMDecoder(nn.Module):
    """MAE's decoder and, beside it, a loss predictor over the same embedded tokens.

    Wang et al., 2023, section 3.2. Both are equally deep. The last layer of the predictor has one
    output per value of a patch, whose mean is the score, as in the original.

    Attributes: as in `MAEDecoder`.
    """

    width: int = 512
    depth: int = 8
    heads: int = 16
    mlp_ratio: float = 4.0
    scan: bool = False
    remat: str = "none"
    dtype: str = "auto"

    @nn.compact
    def __call__(
        self, tokens: jax.Array, grid: TokenGrid, mask: Mask, outputs: int
    ) -> dict[str, Any]:
        """Predicts `outputs` values and one score for every position.

        Returns:
          The outputs of `MAEDecoder`, and `scores` float32 [B, N] in raster order: large where the
          error is expected to be.
        """
        dtype = compute_dtype(self.dtype)
        options = self.depth, self.heads, self.mlp_ratio, self.scan, self.remat
        decoder = MAEDecoder(self.width, *options, dtype=self.dtype, name="reconstructor")
        decoded = decoder(tokens, grid, mask, outputs)
        x, _ = Transformer(*options, dtype, name="stack")(decoded["embedded"])
        x = layer_norm(dtype, "norm")(x[:, 1:])
        x = Dense(outputs, kernel_init=xavier, dtype=dtype, name="head")(x)
        scores = x.astype(jnp.float32).mean(axis=-1)
        return {**decoded, "scores": take_tokens(scores, mask.restore)}

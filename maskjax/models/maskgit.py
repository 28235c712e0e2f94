"""The transformer over codes of MaskGIT (Chang et al., 2022): BERT with a class token."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from maskjax.models.layers import ACTIVATIONS, Dense, layer_norm, truncated_normal
from maskjax.models.post_norm import PostNormBlock
from maskjax.models.precision import compute_dtype
from maskjax.models.stack import Stack, dropout

_EPSILON = 1e-12  # of every norm, as in BERT


class CodeTransformer(nn.Module):
    """Predicts every code from those that are known, and from the class.

    One table has a vector for each code, each class and the mask, in this order; the logits are
    products with the vectors of the codes.

    Attributes:
      width: D, divisible by `heads`.
      depth: number of blocks.
      heads: attention heads.
      mlp_ratio: hidden width of the MLP relative to D.
      dropout: rate, of the embeddings and in the blocks.
      scan: loop over the blocks instead of unrolling them.
      remat: what the backward pass recomputes, see `REMAT_POLICIES`.
      dtype: of the computation, see `compute_dtype`.
    """

    width: int = 768
    depth: int = 24
    heads: int = 16
    mlp_ratio: float = 4.0
    dropout: float = 0.1
    scan: bool = False
    remat: str = "none"
    dtype: str = "auto"

    @nn.compact
    def __call__(
        self,
        codes: jax.Array,
        hidden: jax.Array,
        label: jax.Array,
        vocabulary: int,
        classes: int,
        rng: jax.Array | None = None,
    ) -> dict[str, Any]:
        """Predicts codes at every place.

        Args:
          codes: int [B, N] in [0, V), in raster order.
          hidden: bool [B, N], True where the code must not be seen.
          label: int [B] in [0, classes), or `classes` where it is unknown: the mask stands there.
          vocabulary: V.
          classes: number of classes, perhaps 0.
          rng: key of dropout; None: deterministic.

        Returns:
          `blocks[i]` and `tokens` [B, 1 + N, D], the class first; `cls` [B, D]; `patches` [B, N, D]
          in raster order; `mean` [B, D], of `patches`; `middle` [B, D], the mean of the places
          after half of the blocks; `logits`, float32 [B, N, V].
        """
        dtype = compute_dtype(self.dtype)
        normal = truncated_normal(0.02)
        mask_id = vocabulary + classes
        table = self.param("table", normal, (mask_id + 1, self.width))
        positions = self.param("positions", normal, (codes.shape[1] + 1, self.width))
        # The id behind the last class is the mask: a label that is unknown is hidden, as a code is.
        ids = jnp.concatenate(
            [vocabulary + label[:, None], jnp.where(hidden, mask_id, codes)], axis=1
        )
        x = table[ids].astype(dtype) + positions.astype(dtype)[None, :, :]
        first, second = (None, None) if rng is None else jax.random.split(rng)
        x = dropout(layer_norm(dtype, "norm_embed", _EPSILON)(x), self.dropout, first)
        block = PostNormBlock(
            self.heads,
            self.mlp_ratio,
            _EPSILON,
            self.dropout,
            "gelu_tanh",
            self.dtype,
            parent=None,
        )
        x, blocks = Stack((block,), self.depth, self.scan, self.remat, name="stack")(x, second)
        y = Dense(self.width, kernel_init=normal, dtype=dtype, name="transform")(x[:, 1:])
        y = layer_norm(dtype, "norm", _EPSILON)(ACTIVATIONS["gelu_tanh"](y))
        logits = y @ table[:vocabulary].astype(dtype).T
        bias = self.param("bias", nn.initializers.zeros, (vocabulary,))
        return {
            "blocks": blocks,
            "tokens": x,
            "cls": x[:, 0],
            "patches": x[:, 1:],
            "mean": x[:, 1:].astype(jnp.float32).mean(axis=1),
            "middle": blocks[(self.depth - 1) // 2][:, 1:].astype(jnp.float32).mean(axis=1),
            "logits": logits.astype(jnp.float32) + bias[None, None, :],
        }

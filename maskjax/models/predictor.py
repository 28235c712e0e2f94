"""The predictor of joint-embedding architectures (I-JEPA: Assran et al., 2023, section 3)."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from maskjax.models.layers import KERNEL_INITS, Dense, chosen, layer_norm, truncated_normal
from maskjax.models.precision import compute_dtype
from maskjax.models.transformer import Transformer
from maskjax.tokens import TokenGrid, sincos


class Predictor(nn.Module):
    """Predicts the features of target tokens from those of context tokens, all named by number.

    Every target block is a sequence of its own: the context with its positions, then one mask token
    with a position for each target. Blocks do not see each other.

    Attributes:
      width: of the predictor; divisible by `heads` and by 4.
      depth: number of blocks.
      heads: attention heads; published with as many as the encoder has.
      mlp_ratio: hidden width of the MLP relative to `width`.
      mask_tokens: number of mask tokens; V-JEPA (Bardes et al., 2024) has one per kind of mask.
      scan: loop over the blocks instead of unrolling them.
      remat: what the backward pass recomputes, see `REMAT_POLICIES`.
      dtype: of the computation, see `compute_dtype`.
      init_kernel: a name of `layers.KERNEL_INITS`; published: "normal".
    """

    width: int = 384
    depth: int = 12
    heads: int = 12
    mlp_ratio: float = 4.0
    mask_tokens: int = 1
    scan: bool = False
    remat: str = "none"
    dtype: str = "auto"
    init_kernel: str = "normal"

    @nn.compact
    def __call__(
        self,
        tokens: jax.Array,
        context: jax.Array,
        targets: jax.Array,
        grid: TokenGrid,
        outputs: int,
        context_weight: jax.Array | None = None,
        target_weight: jax.Array | None = None,
        kind: int = 0,
    ) -> dict[str, Any]:
        """Predicts `outputs` values for every target.

        Args:
          tokens: [B, K, E], the encoder's output at the context.
          context: int [B, K], which tokens of the grid these are.
          targets: int [B, T, M], which tokens to predict, in T blocks.
          grid: geometry of all tokens.
          outputs: values per token, the width of the target encoder.
          context_weight: [B, K], 0 for entries that only fill the list; None: all count.
          target_weight: [B, T, M], likewise.
          kind: which of the mask tokens to use.

        Returns:
          `blocks[i]` and `tokens` [B * T, K + M, width], the blocks of an example together, and
          `prediction` float32 [B, T, M, outputs].
        """
        dtype = compute_dtype(self.dtype)
        kernel = chosen(KERNEL_INITS, self.init_kernel, "init_kernel")
        table = jnp.asarray(sincos(grid.shape, self.width), dtype)
        b, t, m = targets.shape
        k = context.shape[1]

        embed = Dense(self.width, kernel_init=kernel, dtype=dtype, name="embed")
        seen = embed(tokens) + table[context]
        shape = (self.mask_tokens, self.width)
        mask_token = self.param("mask_token", truncated_normal(0.02), shape)
        asked = mask_token[kind].astype(dtype)[None, None, None, :] + table[targets]
        # Block next to block of one example, so that a sharded batch stays where it is.
        seen = jnp.broadcast_to(seen[:, None], (b, t, k, self.width))
        x = jnp.concatenate([seen, asked], axis=2).reshape(b * t, k + m, self.width)

        readable = None
        if context_weight is not None or target_weight is not None:
            context_weight = jnp.ones((b, k)) if context_weight is None else context_weight
            target_weight = jnp.ones((b, t, m)) if target_weight is None else target_weight
            parts = [jnp.broadcast_to(context_weight[:, None, :], (b, t, k)), target_weight]
            readable = jnp.concatenate(parts, axis=2).reshape(b * t, 1, 1, k + m) > 0
        stack = Transformer(
            self.depth,
            self.heads,
            self.mlp_ratio,
            self.scan,
            self.remat,
            dtype,
            init_kernel=self.init_kernel,
            name="stack",
        )
        x, blocks = stack(x, mask=readable)
        x = layer_norm(dtype, "norm")(x)
        head = Dense(outputs, kernel_init=kernel, dtype=dtype, name="head")
        prediction = head(x.reshape(b, t, k + m, self.width)[:, :, k:])
        return {"blocks": blocks, "tokens": x, "prediction": prediction.astype(jnp.float32)}

"""The vision transformer that encodes visible patches (MAE: He et al., 2022)."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from maskjax.masking import Mask
from maskjax.models.precision import compute_dtype
from maskjax.models.transformer import Transformer, layer_norm, xavier
from maskjax.tokens import TokenGrid, resize_table, sincos_2d, take_tokens


class ViT(nn.Module):
    """ViT with fixed sine-cosine positions, a class token, and no mask tokens.

    Attributes:
      patch_size: (height, width) of a patch in pixels.
      width: D. Divisible by 4 and by `heads`.
      depth: number of blocks.
      heads: attention heads.
      mlp_ratio: hidden width of the MLP relative to D.
      scan: loop over the blocks instead of unrolling them.
      remat: what the backward pass recomputes, see `REMAT_POLICIES`.
      dtype: of the computation, see `compute_dtype`.
    """

    patch_size: tuple[int, int] = (16, 16)
    width: int = 768
    depth: int = 12
    heads: int = 12
    mlp_ratio: float = 4.0
    scan: bool = False
    remat: str = "none"
    dtype: str = "auto"

    @nn.compact
    def __call__(
        self,
        patches: jax.Array,
        grid: TokenGrid,
        mask: Mask | None = None,
        trained: TokenGrid | None = None,
    ) -> dict[str, Any]:
        """Encodes the patches that a mask leaves visible.

        Args:
          patches: float [B, N, P], all patches in raster order.
          grid: their geometry.
          mask: which to see, in which order; None: all, in raster order.
          trained: the grid that the positions belong to, if another than `grid`: the table is then
            resized (bicubic) from it.

        Returns:
          A dict of intermediates, K = N without a mask:
          `embedded` [B, K, D] with positions; `blocks[i]` [B, 1 + K, D]; `tokens` [B, 1 + K, D]
          after the final norm, class token first; `cls` [B, D], `patches` [B, K, D] parts of it;
          `mean` [B, D] the mean of `patches`.
        """
        dtype = compute_dtype(self.dtype)
        trained = trained or grid
        table = jnp.asarray(
            resize_table(sincos_2d(trained.shape, self.width), trained.shape, grid.shape)
        )
        if mask is None:
            positions = table[None, :, :]
        else:
            # Select before embedding: hidden patches cost neither FLOPs nor memory.
            patches = take_tokens(patches, mask.keep)
            positions = table[mask.keep]
        embed = nn.Dense(self.width, kernel_init=xavier, dtype=dtype, name="embed")
        embedded = embed(patches) + positions.astype(dtype)
        cls = self.param("cls", nn.initializers.normal(0.02), (self.width,)).astype(dtype)
        b, _, d = embedded.shape
        x = jnp.concatenate([jnp.broadcast_to(cls[None, None, :], (b, 1, d)), embedded], axis=1)
        stack = Transformer(
            self.depth, self.heads, self.mlp_ratio, self.scan, self.remat, dtype, name="stack"
        )
        x, blocks = stack(x)
        tokens = layer_norm(dtype, "norm")(x)
        return {
            "embedded": embedded,
            "blocks": blocks,
            "tokens": tokens,
            "cls": tokens[:, 0],
            "patches": tokens[:, 1:],
            "mean": tokens[:, 1:].astype(jnp.float32).mean(axis=1),
        }

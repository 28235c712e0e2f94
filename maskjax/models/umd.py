"""The autoencoder of UMD: one network for clean and noised images (Hansen-Estruch et al., 2024).

Time 0 means clean. Its encoder and decoder have the same width and the same condition.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from maskjax.errors import UserError
from maskjax.masking import Mask
from maskjax.models.adaln import AdaLNTransformer, ConditionTrunk, modulate, time_embedding
from maskjax.models.layers import Dense, layer_norm
from maskjax.models.precision import compute_dtype
from maskjax.tokens import TokenGrid, restore_order, take_tokens


class UMDEncoder(nn.Module):
    """ViT with adaptive norms, learned positions and several class tokens.

    Attributes:
      patch_size: (height, width) of a patch in pixels.
      width: D. Even, divisible by `heads`.
      depth: number of blocks.
      heads: attention heads.
      mlp_ratio: hidden width of the MLP relative to D.
      class_tokens: their mean is the representation.
      classes: number of labels that may condition it; 0: none.
      scan: loop over the blocks instead of unrolling them.
      remat: what the backward pass recomputes, see `REMAT_POLICIES`.
      dtype: of the computation, see `compute_dtype`.
    """

    patch_size: tuple[int, int] = (4, 4)
    width: int = 768
    depth: int = 12
    heads: int = 12
    mlp_ratio: float = 4.0
    class_tokens: int = 4
    classes: int = 0
    scan: bool = False
    remat: str = "none"
    dtype: str = "auto"

    @nn.compact
    def __call__(
        self,
        patches: jax.Array,
        grid: TokenGrid,
        mask: Mask | None = None,
        time: jax.Array | None = None,
        label: jax.Array | None = None,
    ) -> dict[str, Any]:
        """Encodes the patches that a mask leaves visible.

        Args:
          patches: float [B, N, P], all patches in raster order.
          grid: their geometry; the positions are learned for one grid.
          mask: which to see, in which order; None: all, in raster order.
          time: int [B], 0 where the image is clean, t + 1 at time t of the noise; None: clean.
          label: int [B], `classes` where it is unknown; None: unknown.

        Returns:
          C = `class_tokens`, K = N without a mask: `condition` [B, D]; `blocks[i]` and `tokens`
          [B, C + K, D], class tokens first; `patches` [B, K, D]; `cls` [B, D], the mean of the
          class tokens: UMD's representation; `mean` [B, D], that of `patches`.
        """
        dtype = compute_dtype(self.dtype)
        b, n, _ = patches.shape
        if self.width % 2 or self.width < 4:
            raise UserError(f"UMD needs an even width of at least 4, not {self.width}.")
        scale = nn.initializers.normal(n**-0.5)
        positions = self.param("positions", scale, (grid.num_tokens, self.width)).astype(dtype)

        time = jnp.zeros((b,), jnp.int32) if time is None else time
        condition = ConditionTrunk(self.width, name="time")(time_embedding(time, self.width))
        if self.classes:
            label = jnp.full((b,), self.classes, jnp.int32) if label is None else label
            known = nn.Embed(self.classes + 1, self.width, name="labels")(label)
            condition = condition + ConditionTrunk(self.width, name="label_trunk")(known)
        elif label is not None:
            raise UserError("This network takes no labels: set system.encoder.classes.")
        condition = nn.silu(condition)

        if mask is None:
            places = positions[None, :, :]
        else:
            patches, places = take_tokens(patches, mask.keep), positions[mask.keep]
        x = Dense(self.width, dtype=dtype, name="embed")(patches) + places
        c = self.class_tokens
        cls = self.param("cls", nn.initializers.zeros, (c, self.width)).astype(dtype)
        x = jnp.concatenate([jnp.broadcast_to(cls[None], (b, c, self.width)), x], axis=1)
        x, blocks = AdaLNTransformer(
            self.depth, self.heads, self.mlp_ratio, self.scan, self.remat, dtype, name="stack"
        )(x, condition)
        tokens = layer_norm(dtype, "norm")(x)
        return {
            "condition": condition,
            "blocks": blocks,
            "tokens": tokens,
            "patches": tokens[:, c:],
            "cls": tokens[:, :c].astype(jnp.float32).mean(axis=1),
            "mean": tokens[:, c:].astype(jnp.float32).mean(axis=1),
        }


class UMDDecoder(nn.Module):
    """Adaptive-norm decoder of the encoder's width over [representation, all positions].

    Attributes: as in `UMDEncoder`; the width is the encoder's.
    """

    depth: int = 4
    heads: int = 12
    mlp_ratio: float = 4.0
    scan: bool = False
    remat: str = "none"
    dtype: str = "auto"

    @nn.compact
    def __call__(
        self, encoded: dict[str, Any], grid: TokenGrid, mask: Mask | None, outputs: int
    ) -> dict[str, Any]:
        """Predicts data and noise at every position.

        Args:
          encoded: from `UMDEncoder`.
          grid: geometry of all N positions.
          mask: which positions were visible; None: all.
          outputs: P, values per token.

        Returns:
          `blocks`, `tokens` [B, 1 + N, D], `clean` and `noise`, float32 [B, N, P] in raster order:
          the data without noise, and the noise that was added.
        """
        dtype = compute_dtype(self.dtype)
        width, condition = encoded["cls"].shape[-1], encoded["condition"]
        scale = nn.initializers.normal(grid.num_tokens**-0.5)
        positions = self.param("positions", scale, (grid.num_tokens, width)).astype(dtype)
        fill = self.param("mask_token", nn.initializers.normal(0.02), (width,)).astype(dtype)
        x = encoded["patches"]
        if mask is not None:
            x = restore_order(x, fill, mask.restore)
        summary = encoded["cls"].astype(dtype)[:, None, :]
        x = jnp.concatenate([summary, x + positions[None, :, :]], axis=1)
        x, blocks = AdaLNTransformer(
            self.depth, self.heads, self.mlp_ratio, self.scan, self.remat, dtype, name="stack"
        )(x, condition)
        tokens = layer_norm(dtype, "norm")(x)
        final = Dense(2 * width, kernel_init=nn.initializers.zeros, dtype=dtype, name="modulation")(
            condition
        )
        y = modulate(tokens[:, 1:], *jnp.split(final, 2, axis=-1))
        normal = nn.initializers.normal(0.02)
        y = Dense(2 * outputs, kernel_init=normal, dtype=dtype, name="head")(y)
        clean, noise = jnp.split(y.astype(jnp.float32), 2, axis=-1)
        return {"blocks": blocks, "tokens": tokens, "clean": clean, "noise": noise}

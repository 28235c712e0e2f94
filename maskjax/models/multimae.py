"""The decoders of MultiMAE: one per task, reading all modalities (Bachmann et al., 2022)."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from maskjax.masking import Mask
from maskjax.models.layers import Dense, xavier
from maskjax.models.multimodal import (
    Grids,
    Valid,
    fixed_positions,
    joint_valid,
    place_tokens,
    split_tokens,
    vectors,
)
from maskjax.models.precision import compute_dtype
from maskjax.models.transformer import CrossBlock, Transformer
from maskjax.tokens import take_tokens


class TaskDecoder(nn.Module):
    """Cross-attention from the places of one modality to what the encoder saw of all.

    Attributes: as in `MultiMAEDecoder`.
    """

    width: int
    depth: int
    heads: int
    mlp_ratio: float
    scan: bool
    remat: str
    dtype: str

    @nn.compact
    def __call__(
        self,
        encoded: Mapping[str, Any],
        grids: Grids,
        mask: Mask | None,
        name: str,
        values: int,
        valid: Valid | None = None,
    ) -> jax.Array:
        """Returns the prediction for the modality `name`, float32 [B, N_m, values]."""
        dtype = compute_dtype(self.dtype)
        embed = Dense(self.width, kernel_init=xavier, dtype=dtype, name="embed")
        first, kept = embed(encoded["globals"]), embed(encoded["patches"])
        fill = self.param("mask_token", nn.initializers.zeros, (self.width,))
        placed = place_tokens(kept, [fill] * len(grids), grids, mask)
        extra = []
        for modality, grid in grids.items():
            kind = self.param(f"type_{modality}", vectors, (self.width,))
            extra.append(fixed_positions(grid, self.width, rows_first=True) + kind[None, :])
        placed = placed + jnp.concatenate(extra).astype(dtype)[None, :, :]
        queries = split_tokens(placed, grids)[name]
        real = joint_valid(valid or {}, grids, placed.shape[0])
        context = placed
        if mask is not None:
            context = take_tokens(placed, mask.keep)
            real = None if real is None else take_tokens(real, mask.keep)
        keys = None
        if real is not None:
            always = jnp.ones(first.shape[:2], bool)
            keys = jnp.concatenate([real, always], axis=1)[:, None, None, :]
        context = jnp.concatenate([context, first], axis=1)
        cross = CrossBlock(self.heads, self.mlp_ratio, dtype, residual=False, name="cross")
        x = cross(queries, context, keys)
        if self.depth:
            own = (valid or {}).get(name)
            x, _ = Transformer(
                self.depth, self.heads, self.mlp_ratio, self.scan, self.remat, dtype, name="stack"
            )(x, None if own is None else own[:, None, None, :])
        head = Dense(values, kernel_init=xavier, dtype=dtype, name="head")
        return head(x).astype(jnp.float32)


class MultiMAEDecoder(nn.Module):
    """A shallow decoder for every task.

    The queries are all places of the task's modality (what the encoder made of them where they
    were visible, the mask token elsewhere); the context are the visible tokens of all modalities
    and the global tokens. Cross-attention has no residual: a prediction is made of the context.

    Attributes:
      width: D.
      depth: self-attention blocks after the cross-attention.
      heads: attention heads.
      mlp_ratio: hidden width of the MLP relative to D.
      scan: loop over the blocks instead of unrolling them.
      remat: what the backward pass recomputes, see `REMAT_POLICIES`.
      dtype: of the computation, see `compute_dtype`.
    """

    width: int = 256
    depth: int = 2
    heads: int = 8
    mlp_ratio: float = 4.0
    scan: bool = False
    remat: str = "none"
    dtype: str = "auto"

    @nn.compact
    def __call__(
        self,
        encoded: Mapping[str, Any],
        grids: Grids,
        mask: Mask | None,
        outputs: Mapping[str, tuple[str, int]],
        valid: Valid | None = None,
    ) -> dict[str, Any]:
        """Predicts every place of the modalities in `grids`; arguments as in `M3AEDecoder`.

        Returns:
          {task: {`prediction`: float32 [B, N_m, values]}}.
        """
        out = {}
        for task, (name, values) in outputs.items():
            if name in grids:
                decoder = TaskDecoder(
                    self.width,
                    self.depth,
                    self.heads,
                    self.mlp_ratio,
                    self.scan,
                    self.remat,
                    self.dtype,
                    name=task,
                )
                prediction = decoder(encoded, grids, mask, name, values, valid)
                out[task] = {"prediction": prediction}
        return out

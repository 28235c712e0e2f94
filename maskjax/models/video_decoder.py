"""The decoder of VideoMAE, which runs on visible tokens and mask tokens side by side."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from maskjax.errors import UserError
from maskjax.masking import Mask
from maskjax.models.layers import Dense, layer_norm, xavier
from maskjax.models.precision import compute_dtype
from maskjax.models.transformer import Transformer
from maskjax.tokens import TokenGrid, restore_order, sinusoid_flat


class VideoDecoder(nn.Module):
    """Transformer over [visible tokens, mask tokens], each with its position added.

    Tong et al., 2022, and with a decoder mask Wang et al., 2023 (dual masking). The sequence is not
    un-shuffled: attention does not need an order. Predictions are made at the mask tokens only.

    Attributes: as in `models.ViT`, whose encoder has no class token here; the defaults are those
    of ViT-B: half its width, heads of 64.
    """

    width: int = 384
    depth: int = 4
    heads: int = 6
    mlp_ratio: float = 4.0
    scan: bool = False
    remat: str = "none"
    dtype: str = "auto"
    drop_path: float = 0.0
    bias: str = "qv"
    cosine: bool = False
    layer_scale: float | None = None

    @nn.compact
    def __call__(
        self,
        tokens: jax.Array,
        grid: TokenGrid,
        mask: Mask,
        outputs: int,
        decoder_mask: Mask | None = None,
    ) -> dict[str, Any]:
        """Predicts `outputs` values at the positions that were hidden, or at those that are shown.

        Args:
          tokens: [B, K, E], the encoder's output in the mask's order, without a class token.
          grid: geometry of all N positions.
          mask: which positions the tokens belong to.
          outputs: values per token.
          decoder_mask: positions that get a mask token and a prediction are its KEPT ones, whether
            the encoder saw them or not; None: those that `mask` hides.

        Returns:
          `blocks[i]` [B, K + S, D] for S positions; `shown`, float32 [B, S, outputs], their
          predictions in the order of `mask.drop` (or `decoder_mask.keep`); `prediction`, float32
          [B, N, outputs], the same in raster order, zero where nothing was predicted.

        Raises:
          UserError: the encoder has a class token.
        """
        if tokens.shape[1] != mask.keep.shape[1]:
            raise UserError(
                "A video decoder has no place for a class token: set "
                "system.encoder.class_token=False."
            )
        dtype = compute_dtype(self.dtype)
        n, hidden = grid.num_tokens, mask.drop.shape[1]
        # Rank of every position among those that are predicted; others rank behind.
        shown, rank = mask.drop, (mask.restore + hidden) % n
        if decoder_mask is not None:
            shown, rank = decoder_mask.keep, decoder_mask.restore
        table = jnp.asarray(sinusoid_flat(n, self.width), dtype)
        x = Dense(self.width, use_bias=False, kernel_init=xavier, dtype=dtype, name="embed")(tokens)
        fill = self.param("mask_token", nn.initializers.normal(0.02), (self.width,)).astype(dtype)
        x = jnp.concatenate([x + table[mask.keep], fill[None, None, :] + table[shown]], axis=1)
        stack = Transformer(
            self.depth,
            self.heads,
            self.mlp_ratio,
            self.scan,
            self.remat,
            dtype,
            bias=self.bias,
            cosine=self.cosine,
            layer_scale=self.layer_scale,
            drop_path=self.drop_path,
            name="stack",
        )
        rng = self.make_rng("dropout") if self.has_rng("dropout") else None
        x, blocks = stack(x, rng=rng, last=shown.shape[1])
        x = layer_norm(dtype, "norm")(x)
        x = Dense(outputs, kernel_init=xavier, dtype=dtype, name="head")(x)
        predicted = x.astype(jnp.float32)
        nothing = jnp.zeros((outputs,), jnp.float32)
        return {
            "blocks": blocks,
            "shown": predicted,
            "prediction": restore_order(predicted, nothing, rank),
        }

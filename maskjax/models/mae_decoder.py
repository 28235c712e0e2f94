"""The light decoder of MAE, which sees every position and predicts pixels."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from maskjax.errors import UserError
from maskjax.masking import Mask
from maskjax.models.layers import Dense, layer_norm, xavier
from maskjax.models.precision import compute_dtype
from maskjax.models.transformer import Transformer
from maskjax.tokens import TokenGrid, sincos_2d, take_tokens


class MAEDecoder(nn.Module):
    """Transformer over [class token, visible tokens, mask tokens], each with its position added.

    The sequence is not un-shuffled before the blocks: attention does not need an order, and the
    last block can leave out what no loss reads.

    Attributes: as in `models.ViT`; the defaults are the paper's, for all encoder sizes.
    """

    width: int = 512
    depth: int = 8
    heads: int = 16
    mlp_ratio: float = 4.0
    scan: bool = False
    remat: str = "none"
    dtype: str = "auto"
    drop_path: float = 0.0
    attention_batch: int | None = None

    @nn.compact
    def __call__(
        self, tokens: jax.Array, grid: TokenGrid, mask: Mask, outputs: int
    ) -> dict[str, Any]:
        """Predicts `outputs` values for every position, or for the masked ones alone.

        Args:
          tokens: [B, 1 + K, E], the encoder's output, class token first, then in the mask's order.
          grid: geometry of all N positions.
          mask: which positions the tokens belong to.
          outputs: values per token, e.g. `grid.values_per_token`.

        Returns:
          `embedded` [B, 1 + N, D], class token first, then in the mask's order (`Mask.keep`,
          `Mask.drop`); `blocks[i]` and `tokens` likewise. `masked`, float32 [B, M, outputs], the
          predictions of masked tokens in the order of `Mask.drop`, for which the last block need
          not compute any others (unless blocks are looped over); `prediction`, float32
          [B, N, outputs] in raster order, at visible positions too; `with_cls`, float32
          [B, 1 + N, outputs], is the same with a prediction at the class token before it.
        """
        if tokens.shape[1] != 1 + mask.keep.shape[1]:
            raise UserError(
                "MAE's decoder reads the class token and the visible patches, but the encoder gave "
                f"{tokens.shape[1]} tokens for {mask.keep.shape[1]} patches: leave "
                "system.encoder.class_token=True and mask_token=False, or take another decoder."
            )
        dtype = compute_dtype(self.dtype)
        x = Dense(self.width, kernel_init=xavier, dtype=dtype, name="embed")(tokens)
        fill = self.param("mask_token", nn.initializers.normal(0.02), (self.width,)).astype(dtype)
        table = jnp.asarray(sincos_2d(grid.shape, self.width), dtype)
        visible, masked = x[:, 1:] + table[mask.keep], fill[None, None, :] + table[mask.drop]
        embedded = jnp.concatenate([x[:, :1], visible, masked], axis=1)
        stack = Transformer(
            self.depth,
            self.heads,
            self.mlp_ratio,
            self.scan,
            self.remat,
            dtype,
            drop_path=self.drop_path,
            attention_batch=self.attention_batch,
            name="stack",
        )
        rng = self.make_rng("dropout") if self.has_rng("dropout") else None
        if self.scan:
            # A loop runs the last block like the others, and would store all outputs for this one.
            x, blocks = stack(embedded, rng=rng)
            masked = x[:, 1 + visible.shape[1] :]
        else:
            masked, blocks = stack(embedded, rng=rng, last=masked.shape[1])
            x = blocks[-1]
        norm = layer_norm(dtype, "norm")
        head = Dense(outputs, kernel_init=xavier, dtype=dtype, name="head")
        tokens = norm(x)
        # Several calls of one layer: who does not read a prediction does not pay for it.
        prediction = take_tokens(head(tokens[:, 1:]).astype(jnp.float32), mask.restore)
        of_class = head(tokens[:, :1]).astype(jnp.float32)
        return {
            "embedded": embedded,
            "blocks": blocks,
            "tokens": tokens,
            "masked": head(norm(masked)).astype(jnp.float32),
            "prediction": prediction,
            "with_cls": jnp.concatenate([of_class, prediction], axis=1),
        }

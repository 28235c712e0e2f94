"""The vision transformer that encodes patches: the visible ones (MAE), or all of them (BEiT)."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from maskjax.errors import UserError
from maskjax.masking import Kept, Mask
from maskjax.models.layers import KERNEL_INITS, Dense, chosen, layer_norm
from maskjax.models.precision import compute_dtype
from maskjax.models.relative_bias import RelativeBias, relative_offsets
from maskjax.models.transformer import Transformer
from maskjax.tokens import (
    TokenGrid,
    relative_entries,
    resize_table,
    sincos,
    sinusoid_flat,
    take_tokens,
)

POSITIONS = ("sincos", "flat", "learned", "none")


class ViT(nn.Module):
    """ViT over the patches of an image, a clip or a spectrogram.

    By default that of MAE (He et al., 2022): fixed sine-cosine positions, a class token, and no
    mask tokens, since it sees visible patches only. The encoder of SimMIM and BEiT has
    `mask_token`, `relative_bias`, no positions, and blocks with `bias="qv"` and `layer_scale`; that
    of VideoMAE has `class_token=False`, "flat" positions and `bias="qv"`.

    Attributes:
      patch_size: extent of a patch along each axis, e.g. height and width in pixels.
      width: D. Divisible by `heads`, and by 4 for positions of images.
      depth: number of blocks.
      heads: attention heads.
      mlp_ratio: hidden width of the MLP relative to D.
      scan: loop over the blocks instead of unrolling them.
      remat: what the backward pass recomputes, see `REMAT_POLICIES`.
      dtype: of the computation, see `compute_dtype`.
      drop_path: rate of stochastic depth of the last block, growing from 0 at the first; drawn from
        the rng stream "dropout", without which nothing is dropped.
      class_token: whether a learned token comes first.
      positions: "sincos", along the axes of the grid; "flat", `sinusoid_flat`; "learned", a
        table of parameters for the grid that it is trained on; or "none".
      relative_bias: a learned bias of attention for every offset, shared by the blocks.
      block_bias: likewise, but every block has its own, as BEiT has them when it is fine-tuned.
      mask_token: hidden patches are replaced by a learned token instead of left out. Then K = N,
        in raster order.
      bias: which projections of attention have a bias: "qkv", "qv" or "none".
      cosine: cosine attention (VideoMAE V2).
      layer_scale: initial factor of the branches, None: there is none.
      init_kernel: a name of `layers.KERNEL_INITS`.
      attention_batch: how many examples of a device attention takes at a time, see `Attention`.
    """

    patch_size: tuple[int, ...] = (16, 16)
    width: int = 768
    depth: int = 12
    heads: int = 12
    mlp_ratio: float = 4.0
    scan: bool = False
    remat: str = "none"
    dtype: str = "auto"
    drop_path: float = 0.0
    class_token: bool = True
    positions: str = "sincos"
    relative_bias: bool = False
    block_bias: bool = False
    mask_token: bool = False
    bias: str = "qkv"
    cosine: bool = False
    layer_scale: float | None = None
    init_kernel: str = "xavier"
    attention_batch: int | None = None

    @nn.compact
    def __call__(
        self,
        patches: jax.Array,
        grid: TokenGrid,
        mask: Mask | Kept | None = None,
        trained: TokenGrid | None = None,
    ) -> dict[str, Any]:
        """Encodes the patches that a mask leaves visible.

        Args:
          patches: float [B, N, P], all patches in raster order.
          grid: their geometry.
          mask: which to see, in which order; None: all, in raster order. Tokens of weight 0 of a
            `Kept` are read by nobody and do not count in `mean`.
          trained: the grid that the positions belong to, if another than `grid`: the table is then
            resized (bicubic) from it. "flat" positions are computed anew instead.

        Returns:
          A dict of intermediates, K = N without a mask, S = K or 1 + K with a class token:
          `embedded` [B, K, D] with positions; `input` [B, S, D], what the first block reads;
          `blocks[i]` [B, S, D], what block i makes of it; `output`, the last of these, which also
          with `scan` is kept without the others; `tokens` [B, S, D] after the final norm, class
          token first; `cls` [B, D], if there is one, and `patches` [B, K, D] parts of it;
          `mean` [B, D] the mean of `patches`.
        """
        dtype, trained = compute_dtype(self.dtype), trained or grid
        # Select before embedding: hidden patches cost neither FLOPs nor memory.
        keep = None if mask is None or self.mask_token else mask.keep
        patches = patches if keep is None else take_tokens(patches, keep)
        kernel = chosen(KERNEL_INITS, self.init_kernel, "init_kernel")
        embedded = Dense(self.width, kernel_init=kernel, dtype=dtype, name="embed")(patches)
        if self.mask_token:
            fill = self._token("mask_token", dtype)
            if isinstance(mask, Kept):
                raise UserError(
                    "An encoder with mask tokens reads masks of which every token is known to be "
                    "kept or hidden: set system.encoder.mask_token to False."
                )
            if mask is not None:
                embedded = jnp.where(mask.is_masked[:, :, None], fill[None, None, :], embedded)
        if (table := self._table(grid, trained)) is not None:
            table = jnp.asarray(table)
            positions = table[None, :, :] if keep is None else table[keep]
            embedded = embedded + positions.astype(dtype)
        first = embedded
        if self.class_token:
            cls = self._token("cls", dtype)
            b, _, d = embedded.shape
            cls = jnp.broadcast_to(cls[None, None, :], (b, 1, d))
            first = jnp.concatenate([cls, embedded], axis=1)
        bias, entries = None, 0
        offsets: Any = None
        if self.relative_bias or self.block_bias:
            offsets = relative_offsets(grid, trained, self.class_token, keep)
            entries = relative_entries(trained.shape, self.class_token)
        if self.relative_bias:
            bias = RelativeBias(self.heads, entries, name="relative_bias")(offsets)
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
            init_kernel=self.init_kernel,
            bias_entries=entries if self.block_bias else 0,
            attention_batch=self.attention_batch,
            name="stack",
        )
        rng = self.make_rng("dropout") if self.has_rng("dropout") else None
        weight = mask.weight if isinstance(mask, Kept) else None
        x, blocks = stack(
            first,
            mask=_readable(weight, self.class_token),
            bias=bias,
            rng=rng,
            offsets=offsets if self.block_bias else None,
        )
        tokens = layer_norm(dtype, "norm")(x)
        patches = tokens[:, 1:] if self.class_token else tokens
        return {
            "embedded": embedded,
            "input": first,
            "blocks": blocks,
            "output": x,
            "tokens": tokens,
            "patches": patches,
            "mean": _mean(patches.astype(jnp.float32), weight),
        } | ({"cls": tokens[:, 0]} if self.class_token else {})

    def _token(self, name: str, dtype: jnp.dtype) -> jax.Array:
        return self.param(name, nn.initializers.normal(0.02), (self.width,)).astype(dtype)

    def _table(self, grid: TokenGrid, trained: TokenGrid) -> Any:
        """Returns the positions, float32 [N, D], or None."""
        if self.positions not in POSITIONS:
            raise UserError(
                f"positions must be one of {', '.join(POSITIONS)}, not '{self.positions}'."
            )
        if self.positions != "learned":
            return fixed_positions(self.positions, grid, self.width, trained)
        shape = (trained.num_tokens, self.width)
        table = self.param("positions", nn.initializers.normal(0.02), shape)
        return resize_table(table, trained.shape, grid.shape)


def fixed_positions(
    positions: str, grid: TokenGrid, width: int, trained: TokenGrid | None = None
) -> np.ndarray | jax.Array | None:
    """Returns the table of positions that are not learned, float32 [N, D]; None: there is none.

    Args:
      positions: "sincos", "flat" or "none".
      grid: of the tokens.
      width: D.
      trained: as in `ViT`.
    """
    if positions == "none":
        return None
    if positions == "flat":
        return sinusoid_flat(grid.num_tokens, width)
    trained = trained or grid
    return resize_table(sincos(trained.shape, width), trained.shape, grid.shape)


def _readable(weight: jax.Array | None, class_token: bool) -> jax.Array | None:
    """Returns which tokens may be attended, bool [B, 1, 1, S]; None: all."""
    if weight is None:
        return None
    readable = jnp.pad(weight > 0, ((0, 0), (int(class_token), 0)), constant_values=True)
    return readable[:, None, None, :]


def _mean(x: jax.Array, weight: jax.Array | None) -> jax.Array:
    """Returns the mean over the tokens that count: [B, K, D] -> [B, D]."""
    if weight is None:
        return x.mean(axis=1)
    return (x * weight[:, :, None]).sum(axis=1) / jnp.maximum(weight.sum(axis=1), 1.0)[:, None]

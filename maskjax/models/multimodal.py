"""One transformer over the tokens of several modalities (M3AE, MultiMAE)."""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from maskjax.masking import Mask
from maskjax.models.layers import layer_norm
from maskjax.models.precision import compute_dtype
from maskjax.models.transformer import Transformer
from maskjax.tokens import TokenGrid, resize_table, sincos_1d, sincos_2d, take_tokens

Grids = Mapping[str, TokenGrid]
Valid = Mapping[str, jax.Array]

vectors = nn.initializers.normal(0.02)  # of learned vectors that stand for something


def fixed_positions(
    grid: TokenGrid, width: int, rows_first: bool = False, trained: TokenGrid | None = None
) -> np.ndarray:
    """Returns the sine-cosine table of one modality, float32 [N, width].

    Args:
      grid: of one axis (text) or two (images, maps).
      width: of the model.
      rows_first: whether the first half of the channels encodes the row, as in the published code
        of MultiMAE; in MAE it encodes the column.
      trained: the grid that the positions belong to, if another: an image's table is resized.
    """
    if len(grid.shape) == 1:
        return sincos_1d(np.arange(grid.num_tokens), width).astype(np.float32)
    trained = trained or grid
    table = np.asarray(resize_table(sincos_2d(trained.shape, width), trained.shape, grid.shape))
    return np.roll(table, width // 2, axis=1) if rows_first else table


def joint_valid(valid: Valid, grids: Grids, batch_size: int) -> jax.Array | None:
    """Returns which tokens of the concatenation are no padding, bool [B, N]; None: all."""
    if not any(name in valid for name in grids):
        return None
    parts = [
        valid.get(name, jnp.ones((batch_size, grid.num_tokens), bool))
        for name, grid in grids.items()
    ]
    return jnp.concatenate(parts, axis=1)


def split_tokens(tokens: jax.Array, grids: Grids) -> dict[str, jax.Array]:
    """Cuts the concatenation [B, N, ...] into modalities: {name: [B, N_m, ...]}."""
    ends = np.cumsum([grid.num_tokens for grid in grids.values()])[:-1]
    return dict(zip(grids, jnp.split(tokens, ends, axis=1), strict=True))


def place_tokens(
    kept: jax.Array, fills: Sequence[jax.Array], grids: Grids, mask: Mask | None
) -> jax.Array:
    """Puts visible tokens to their places and each modality's mask token everywhere else.

    Args:
      kept: [B, K, D] in the order of `mask.keep`.
      fills: a vector [D] per modality.
      grids: the geometry of the modalities, in the order of the concatenation.
      mask: over the concatenation; None: all tokens are there, in order.

    Returns:
      [B, N, D].
    """
    if mask is None:
        return kept
    fill = jnp.concatenate(
        [
            jnp.broadcast_to(vector[None, :], (grid.num_tokens, vector.shape[0]))
            for vector, grid in zip(fills, grids.values(), strict=True)
        ]
    )
    placed = take_tokens(kept, jnp.minimum(mask.restore, kept.shape[1] - 1))
    visible = mask.restore[:, :, None] < kept.shape[1]
    return jnp.where(visible, placed, fill.astype(kept.dtype)[None, :, :])


class MultimodalEncoder(nn.Module):
    """ViT over [global tokens, visible tokens of all modalities], with fixed positions.

    Any subset of the modalities can be encoded. Tokens that are not valid (padding of a text, a
    modality that an example lacks) are attended by nobody.

    Attributes:
      embedders: {modality: module of `models.embedders`}, in the order of the concatenation.
      width: D. Divisible by 4 and by `heads`.
      depth: number of blocks.
      heads: attention heads.
      mlp_ratio: hidden width of the MLP relative to D.
      activation: of the MLP, "gelu" or "gelu_tanh".
      global_tokens: number of learned tokens that belong to no modality; the first is `cls`.
      globals_last: whether they stand behind the others (MultiMAE), not before (M3AE).
      types: whether a learned vector per modality is added to its tokens.
      norm: whether the output is normalised.
      rows_first: see `fixed_positions`.
      scan: loop over the blocks instead of unrolling them.
      remat: what the backward pass recomputes, see `REMAT_POLICIES`.
      dtype: of the computation, see `compute_dtype`.
    """

    embedders: Mapping[str, nn.Module]
    width: int = 768
    depth: int = 12
    heads: int = 12
    mlp_ratio: float = 4.0
    activation: str = "gelu"
    global_tokens: int = 1
    globals_last: bool = False
    types: bool = True
    norm: bool = True
    rows_first: bool = False
    scan: bool = False
    remat: str = "none"
    dtype: str = "auto"

    @nn.compact
    def __call__(
        self,
        tokens: Mapping[str, jax.Array],
        grids: Grids,
        mask: Mask | None = None,
        valid: Valid | None = None,
        trained: Grids | None = None,
    ) -> dict[str, Any]:
        """Encodes the visible tokens.

        Args:
          tokens: {modality: [B, N_m, ...]} as its embedder takes them, any subset.
          grids: {modality: geometry} of the same ones, in the order of the concatenation.
          mask: which tokens of the concatenation to see; None: all, in order.
          valid: {modality: bool [B, N_m]}, False where nothing is; a missing one is all valid.
          trained: the grids that the positions belong to, if others than `grids`.

        Returns:
          `embedded` {modality: [B, N_m, D]} with positions; `blocks[i]` and `tokens`
          [B, G + K, D] with the global tokens; parts of it are `cls` [B, D], `globals` [B, G, D],
          `patches` [B, K, D]; `mean` [B, D] over the valid ones of `patches`; without a mask also
          `modalities` {name: [B, N_m, D]}.
        """
        dtype = compute_dtype(self.dtype)
        valid, trained = valid or {}, trained or {}
        embedded = {}
        for name, grid in grids.items():
            x = self.embedders[name](tokens[name], self.width, dtype)
            table = fixed_positions(grid, self.width, self.rows_first, trained.get(name))
            x = x + jnp.asarray(table, dtype)[None, :, :]
            if self.types:
                kind = self.param(f"type_{name}", vectors, (self.width,)).astype(dtype)
                x = x + kind[None, None, :]
            embedded[name] = x
        x = jnp.concatenate(list(embedded.values()), axis=1)
        b = x.shape[0]
        real = joint_valid(valid, grids, b)
        if mask is not None:
            x = take_tokens(x, mask.keep)
            real = None if real is None else take_tokens(real, mask.keep)
        learned = self.param("globals", vectors, (self.global_tokens, self.width)).astype(dtype)
        learned = jnp.broadcast_to(learned[None, :, :], (b, self.global_tokens, self.width))
        keys = None
        if real is not None:
            always = jnp.ones((b, self.global_tokens), bool)
            keys = self._join(always, real)[:, None, None, :]
        stack = Transformer(
            self.depth,
            self.heads,
            self.mlp_ratio,
            self.scan,
            self.remat,
            dtype,
            activation=self.activation,
            name="stack",
        )
        x, blocks = stack(self._join(learned, x), keys)
        x = layer_norm(dtype, "norm")(x) if self.norm else x
        first, patches = self._split(x)
        out = {
            "embedded": embedded,
            "blocks": blocks,
            "tokens": x,
            "globals": first,
            "patches": patches,
            "mean": _mean(patches, real),
        }
        if self.global_tokens:
            out["cls"] = first[:, 0]
        if mask is None:
            out["modalities"] = split_tokens(patches, grids)
        return out

    def _join(self, first: jax.Array, others: jax.Array) -> jax.Array:
        parts = [others, first] if self.globals_last else [first, others]
        return jnp.concatenate(parts, axis=1)

    def _split(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """[B, G + K, D] -> global tokens [B, G, D], the others [B, K, D]."""
        n = x.shape[1]
        if self.globals_last:
            return x[:, n - self.global_tokens :], x[:, : n - self.global_tokens]
        return x[:, : self.global_tokens], x[:, self.global_tokens :]


def _mean(tokens: jax.Array, valid: jax.Array | None) -> jax.Array:
    """[B, K, D] -> float32 [B, D], the mean of the valid tokens; zero if there are none."""
    tokens = tokens.astype(jnp.float32)
    if valid is None:
        return tokens.mean(axis=1)
    weights = valid.astype(jnp.float32)
    return (tokens * weights[:, :, None]).sum(axis=1) / jnp.maximum(
        weights.sum(axis=1, keepdims=True), 1.0
    )

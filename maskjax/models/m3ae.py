"""The decoder of M3AE: one transformer over all places of all modalities (Geng et al., 2022)."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from maskjax.masking import Mask
from maskjax.models.layers import Dense, layer_norm, xavier
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
from maskjax.models.transformer import Transformer


class M3AEDecoder(nn.Module):
    """Transformer over [global tokens, every place of every modality], with a head per task.

    Attributes: as in `models.MultimodalEncoder`; the defaults are the paper's, for all encoder
      sizes.
    """

    width: int = 512
    depth: int = 8
    heads: int = 16
    mlp_ratio: float = 4.0
    activation: str = "gelu_tanh"
    types: bool = True
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
        """Predicts every place of the modalities in `grids`.

        Args:
          encoded: outputs of the encoder; read are `globals` [B, G, E] and `patches` [B, K, E].
          grids: {modality: geometry} in the order of the concatenation.
          mask: over the concatenation; None: everything was seen, in order.
          outputs: {task: (modality whose places it predicts, values per token)}; tasks of
            modalities that are not in `grids` are left out.
          valid: as in `models.MultimodalEncoder`.

        Returns:
          `tokens` [B, G + N, D] and {task: {`prediction`: float32 [B, N_m, values]}}.
        """
        dtype = compute_dtype(self.dtype)
        embed = Dense(self.width, kernel_init=xavier, dtype=dtype, name="embed")
        first, kept = embed(encoded["globals"]), embed(encoded["patches"])
        fills = [self.param(f"mask_token_{name}", vectors, (self.width,)) for name in grids]
        placed = split_tokens(place_tokens(kept, fills, grids, mask), grids)
        for name, grid in grids.items():
            extra = jnp.asarray(fixed_positions(grid, self.width), dtype)
            if self.types:
                kind = self.param(f"type_{name}", vectors, (self.width,)).astype(dtype)
                extra = extra + kind[None, :]
            placed[name] = placed[name] + extra[None, :, :]
        x = jnp.concatenate([first, *placed.values()], axis=1)
        real = joint_valid(valid or {}, grids, x.shape[0])
        keys = None
        if real is not None:
            always = jnp.ones(first.shape[:2], bool)
            keys = jnp.concatenate([always, real], axis=1)[:, None, None, :]
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
        x, _ = stack(x, keys)
        x = layer_norm(dtype, "norm")(x)
        parts = split_tokens(x[:, first.shape[1] :], grids)
        out: dict[str, Any] = {"tokens": x}
        for task, (name, values) in outputs.items():
            if name in grids:
                head = Dense(values, kernel_init=xavier, dtype=dtype, name=f"head_{task}")
                out[task] = {"prediction": head(parts[name]).astype(jnp.float32)}
        return out

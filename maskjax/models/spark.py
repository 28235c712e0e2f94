"""SparK: masked pretraining of convolutional networks (Tian et al., ICLR 2023, arXiv 2301.03580).

The encoder is any network that returns a pyramid of maps and takes the mask along
(`models.ResNet`, `models.ConvNeXt`); the decoder fills the holes of all maps and goes up through
them like a U-Net.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from maskjax.errors import UserError
from maskjax.masking import Mask
from maskjax.models.batch_norm import BatchNorm
from maskjax.models.layers import truncated_normal
from maskjax.models.precision import compute_dtype
from maskjax.models.sparse_conv import (
    SparseBatchNorm,
    SparseConv,
    SparseLayerNorm,
    active_at,
    active_cells,
    keep_active,
)
from maskjax.parallel.sharding import constrain_batch
from maskjax.tokens import TokenGrid, patchify, unpatchify


class SparseEncoder(nn.Module):
    """A convolutional network that sees the visible patches of an image and nothing else.

    Attributes:
      network: returns maps, finest first, and has `map_strides`; see `models.ResNet`.
      patch_size: what is masked together: the stride of the coarsest map, or a multiple of it.
    """

    network: nn.Module
    patch_size: tuple[int, int] = (32, 32)

    @nn.compact
    def __call__(
        self,
        patches: jax.Array,
        grid: TokenGrid,
        mask: Mask | None = None,
        trained: TokenGrid | None = None,
    ) -> dict[str, Any]:
        """Encodes an image, of which masked pixels are set to zero, the mean of the data.

        Args:
          patches: float [B, N, P], all patches in raster order.
          grid: their geometry.
          mask: which to see; None: all, i.e. the ordinary dense network.
          trained: not used: convolutions take images of any size.

        Returns:
          `maps` and `tokens`: list of [B, h, w, C], finest first, zero where masked; `patches`
          [B, h w, C], the coarsest in raster order; `mean` [B, C] over its visible positions.

        Raises:
          UserError: the patches do not consist of whole cells of the coarsest map.
        """
        del trained
        stride = self.network.map_strides[-1]
        if any(p % stride for p in grid.patch):
            raise UserError(
                f"The coarsest map of the encoder has a stride of {stride} pixels, which does not "
                f"divide the patch of {grid.patch[0]}x{grid.patch[1]}: set patch_size to "
                f"{stride}x{stride} or a multiple."
            )
        active = None if mask is None else active_cells(mask, grid)
        rng = self.make_rng("dropout") if self.has_rng("dropout") else None
        maps = self.network(keep_active(unpatchify(patches, grid), active), active, rng)
        last = maps[-1].astype(jnp.float32)
        b, h, w, c = last.shape
        count = h * w if active is None else active_at(active, h, w).sum(axis=(1, 2))
        return {
            "maps": maps,
            "tokens": maps,
            "patches": maps[-1].reshape(b, h * w, c),
            "mean": last.sum(axis=(1, 2)) / count,
        }


class SparKDecoder(nn.Module):
    """Fills masked places of every map, then goes up by factors of two, adding the maps.

    Attributes:
      width: channels at the coarsest map, halved at every step up.
      norm: of the maps before they are filled: "batch" (as for ResNet) or "layer" (ConvNeXt).
      dtype: of the computation, see `compute_dtype`.
    """

    width: int = 768
    norm: str = "batch"
    dtype: str = "auto"

    @nn.compact
    def __call__(
        self,
        tokens: list[jax.Array],
        grid: TokenGrid,
        mask: Mask,
        outputs: int,
    ) -> dict[str, Any]:
        """Predicts every pixel.

        Args:
          tokens: maps [B, h, w, C], finest first, strides doubling.
          grid: geometry of the patches.
          mask: of the patches.
          outputs: values per patch: its pixels times the channels.

        Returns:
          `filled[i]` and `projected[i]`, coarsest first: the maps with mask tokens, before and
          after their projection; `prediction`, float32 [B, N, outputs] in raster order, at visible
          patches too.

        Raises:
          UserError: an unknown norm, or widths and strides that cannot be halved.
        """
        dtype = compute_dtype(self.dtype)
        active = active_cells(mask, grid)
        steps = self._steps(tokens[-1].shape[1], grid, outputs)
        filled, projected = [], []
        for i, feature in enumerate(reversed(tokens[-steps:])):
            filled.append(self._fill(feature.astype(dtype), active, i, dtype))
            projected.append(self._project(filled[-1], i, dtype))
        x = jnp.zeros((), dtype)
        for i in range(steps):
            if i < len(projected):
                x = x + projected[i] if i else projected[i]
            x = _UpBlock(self.width // 2**i, dtype, name=f"up{i}")(x)
        channels = outputs // (grid.patch[0] * grid.patch[1])
        image = nn.Conv(channels, (1, 1), dtype=dtype, kernel_init=truncated_normal(), name="head")
        x = image(x).astype(jnp.float32)
        full = TokenGrid(grid.shape, grid.patch, channels)
        return {"filled": filled, "projected": projected, "prediction": patchify(x, full)}

    def _steps(self, height: int, grid: TokenGrid, outputs: int) -> int:
        """Returns how often the coarsest map is doubled until it has the size of the image."""
        stride = grid.size[0] // height
        steps = stride.bit_length() - 1
        if 2**steps != stride or steps < 1:
            raise UserError(
                f"SparK's decoder doubles its maps, so their stride of {stride} has to be a power "
                "of two, and at least 2."
            )
        if self.width % 2**steps:
            raise UserError(
                f"SparK's decoder halves its width {steps} times: system.decoder.width has to be "
                f"a multiple of {2**steps}, not {self.width}."
            )
        if outputs % (grid.patch[0] * grid.patch[1]):
            raise UserError("SparK's decoder predicts pixels: choose targets of pixels.")
        return steps

    def _fill(self, x: jax.Array, active: jax.Array, i: int, dtype: jnp.dtype) -> jax.Array:
        """Normalises visible places and puts a learned vector into the others."""
        norms = {"batch": SparseBatchNorm, "layer": SparseLayerNorm}
        if self.norm not in norms:
            raise UserError(f"The norm of SparK's decoder is batch or layer, not '{self.norm}'.")
        x = norms[self.norm](dtype, name=f"fill{i}_norm")(x, active)
        # The reference cuts the normal distribution at one standard deviation.
        token = self.param(f"mask_token{i}", truncated_normal(0.02, cut=1.0), (x.shape[-1],))
        visible = active_at(active, *x.shape[1:3]) > 0
        return jnp.where(visible, x, token.astype(dtype)[None, None, None, :])

    def _project(self, x: jax.Array, i: int, dtype: jnp.dtype) -> jax.Array:
        """Brings a map to the width of its step."""
        width = self.width // 2**i
        if i == 0 and x.shape[-1] == width:
            return x
        return SparseConv(width, 1 if i == 0 else 3, dtype=dtype, name=f"project{i}")(x)


class _UpBlock(nn.Module):
    """Doubles the resolution, then two convolutions, the second to half of the width."""

    width: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, width] -> [B, 2 H, 2 W, width / 2]."""
        # PyTorch's ConvTranspose2d(kernel_size=4, stride=2, padding=1): Flax counts the padding
        # of the dilated input instead, 4 - 1 - 1.
        x = nn.ConvTranspose(
            self.width, (4, 4), (2, 2), ((2, 2), (2, 2)), dtype=self.dtype, name="up"
        )(x)
        for i, (width, bounded) in enumerate(((self.width, True), (self.width // 2, False))):
            x = SparseConv(width, 3, use_bias=False, dtype=self.dtype, name=f"conv{i}")(x)
            x = BatchNorm(dtype=self.dtype, name=f"norm{i}")(x)
            x = nn.relu6(x) if bounded else x
        return constrain_batch(x)

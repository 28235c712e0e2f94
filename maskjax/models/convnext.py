"""ConvNeXt (Liu et al., CVPR 2022) as a pyramid of feature maps, dense or under a mask."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from maskjax.errors import UserError
from maskjax.models.layers import Dense, gelu, truncated_normal
from maskjax.models.precision import compute_dtype
from maskjax.models.sparse_conv import SparseConv, SparseLayerNorm, keep_active
from maskjax.models.transformer import stochastic_depth
from maskjax.parallel.sharding import constrain_batch, constrain_tensor


class ConvNeXt(nn.Module):
    """ConvNeXt; the defaults are ConvNeXt-B.

    Attributes:
      depths: blocks of each stage.
      widths: channels of each stage.
      stem: extent of the first patches; later stages start with a stride of 2.
      layer_scale: initial value of the learned factors of every branch.
      drop_path: rate of stochastic depth of the last block; it grows linearly from 0.
      dtype: of the computation, see `compute_dtype`.
    """

    depths: tuple[int, ...] = (3, 3, 27, 3)
    widths: tuple[int, ...] = (128, 256, 512, 1024)
    stem: int = 4
    layer_scale: float = 1e-6
    drop_path: float = 0.0
    dtype: str = "auto"

    norm = "layer"  # what densification normalises by, see `models.SparKDecoder`

    @property
    def map_strides(self) -> tuple[int, ...]:
        """Strides of the maps in pixels, first stage first."""
        return tuple(self.stem * 2**i for i in range(len(self.depths)))

    @nn.compact
    def __call__(
        self, images: jax.Array, active: jax.Array | None = None, rng: jax.Array | None = None
    ) -> list[jax.Array]:
        """Returns the output of every stage, finest first.

        Args:
          images: float [B, H, W, C], zero where masked.
          active: float [B, f, f, 1], 1 where visible; None: a dense network.
          rng: key of stochastic depth; None: none.
        """
        if len(self.depths) != len(self.widths):
            raise UserError("depths and widths of a ConvNeXt need one entry per stage.")
        dtype = compute_dtype(self.dtype)
        x = images.astype(dtype)
        maps, number, total = [], 0, sum(self.depths)
        for stage, (depth, width) in enumerate(zip(self.depths, self.widths, strict=True)):
            size = self.stem if stage == 0 else 2
            down = SparseConv(
                width,
                size,
                size,
                padding=0,
                dtype=dtype,
                kernel_init=truncated_normal(),
                name=f"down{stage}",
            )
            norm = SparseLayerNorm(dtype, name=f"down{stage}_norm")
            x = norm(down(x, active), active) if stage == 0 else down(norm(x, active), active)
            for i in range(depth):
                block = ConvNeXtBlock(self.layer_scale, dtype, name=f"stage{stage}_block{i}")
                key = None if rng is None else jax.random.fold_in(rng, number)
                x = block(x, active, key, self.drop_path * number / max(total - 1, 1))
                number += 1
            maps.append(x)
        return maps


class ConvNeXtBlock(nn.Module):
    """Depthwise 7 x 7 convolution, norm, and an MLP on the channels; scaled, beside a shortcut."""

    layer_scale: float
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        active: jax.Array | None,
        rng: jax.Array | None = None,
        drop_path: float = 0.0,
    ) -> jax.Array:
        """[B, H, W, C] -> the same shape."""
        c, start = x.shape[-1], truncated_normal()
        x = constrain_batch(x)
        depthwise = SparseConv(
            c, 7, groups=c, dtype=self.dtype, kernel_init=start, name="depthwise"
        )
        y = SparseLayerNorm(self.dtype, name="norm")(depthwise(x, active), active)
        y = Dense(4 * c, dtype=self.dtype, kernel_init=start, name="up")(y)
        y = gelu(constrain_tensor(y, 3))
        y = Dense(c, dtype=self.dtype, kernel_init=start, name="down")(y)
        gamma = self.param("layer_scale", nn.initializers.constant(self.layer_scale), (c,))
        y = keep_active(y * gamma.astype(y.dtype)[None, None, None, :], active)
        return constrain_batch(x + stochastic_depth(y, drop_path, rng))

"""ResNet (He et al., 2016) as a pyramid of feature maps, dense or under a mask."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from maskjax.errors import UserError
from maskjax.models.precision import compute_dtype
from maskjax.models.sparse_conv import SparseBatchNorm, SparseConv, sparse_max_pool
from maskjax.models.transformer import stochastic_depth
from maskjax.parallel.sharding import constrain_batch


class ResNet(nn.Module):
    """ResNet with the stride in the 3 x 3 convolution (version 1.5); the defaults are ResNet-50.

    Attributes:
      depths: blocks of each stage.
      widths: channels of each stage's 3 x 3 convolutions; a bottleneck's result has four times as
        many.
      strides: of each stage.
      bottleneck: blocks of 1 x 1, 3 x 3, 1 x 1 convolutions (ResNet-50 and deeper), or of two
        3 x 3.
      stem: "imagenet": 7 x 7 with stride 2 and max-pooling, so maps start at stride 4 / "small":
        3 x 3 with stride 1, for small images.
      stem_width: channels of the stem.
      drop_path: rate of stochastic depth of the last block; it grows linearly from 0.
      dtype: of the computation, see `compute_dtype`.
    """

    depths: tuple[int, ...] = (3, 4, 6, 3)
    widths: tuple[int, ...] = (64, 128, 256, 512)
    strides: tuple[int, ...] = (1, 2, 2, 2)
    bottleneck: bool = True
    stem: str = "imagenet"
    stem_width: int = 64
    drop_path: float = 0.0
    dtype: str = "auto"

    norm = "batch"  # what densification normalises by, see `models.SparKDecoder`

    @property
    def map_strides(self) -> tuple[int, ...]:
        """Strides of the maps in pixels, first stage first."""
        strides, total = [], {"imagenet": 4, "small": 1}.get(self.stem, 1)
        for stride in self.strides:
            total *= stride
            strides.append(total)
        return tuple(strides)

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
        if not len(self.depths) == len(self.widths) == len(self.strides):
            raise UserError("depths, widths and strides of a ResNet need one entry per stage.")
        dtype = compute_dtype(self.dtype)
        x = images.astype(dtype)
        if self.stem == "imagenet":
            x = SparseConv(self.stem_width, 7, 2, use_bias=False, dtype=dtype, name="stem")(
                x, active
            )
        elif self.stem == "small":
            x = SparseConv(self.stem_width, 3, use_bias=False, dtype=dtype, name="stem")(x, active)
        else:
            raise UserError(f"The stem of a ResNet is imagenet or small, not '{self.stem}'.")
        x = nn.relu(SparseBatchNorm(dtype, name="stem_norm")(x, active))
        if self.stem == "imagenet":
            x = sparse_max_pool(x, active)
        maps, number, total = [], 0, sum(self.depths)
        for stage, depth in enumerate(self.depths):
            for i in range(depth):
                block = ResidualBlock(
                    self.widths[stage],
                    self.strides[stage] if i == 0 else 1,
                    self.bottleneck,
                    dtype,
                    name=f"stage{stage}_block{i}",
                )
                key = None if rng is None else jax.random.fold_in(rng, number)
                x = block(x, active, key, self.drop_path * number / max(total - 1, 1))
                number += 1
            maps.append(x)
        return maps


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions, or a bottleneck of three, beside a shortcut.

    The scale of the last norm starts at zero, so that a block starts as its shortcut (Goyal et
    al., 2017).
    """

    width: int
    stride: int
    bottleneck: bool
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        active: jax.Array | None,
        rng: jax.Array | None = None,
        drop_path: float = 0.0,
    ) -> jax.Array:
        """[B, H, W, C] -> [B, H / stride, W / stride, width or 4 width]."""
        # (channels, kernel, stride) of the convolutions.
        if self.bottleneck:
            plan = [(self.width, 1, 1), (self.width, 3, self.stride), (4 * self.width, 1, 1)]
        else:
            plan = [(self.width, 3, self.stride), (self.width, 3, 1)]
        y = x = constrain_batch(x)
        for i, (features, kernel, stride) in enumerate(plan):
            last = i == len(plan) - 1
            y = SparseConv(
                features, kernel, stride, use_bias=False, dtype=self.dtype, name=f"conv{i}"
            )(y, active)
            start = nn.initializers.zeros if last else nn.initializers.ones
            y = SparseBatchNorm(self.dtype, start, name=f"norm{i}")(y, active)
            y = y if last else nn.relu(y)
        if x.shape != y.shape:
            x = SparseConv(
                y.shape[-1], 1, self.stride, use_bias=False, dtype=self.dtype, name="shortcut"
            )(x, active)
            x = SparseBatchNorm(self.dtype, name="shortcut_norm")(x, active)
        return constrain_batch(nn.relu(x + stochastic_depth(y, drop_path, rng)))

"""Convolutional layers that keep a mask: what is hidden stays hidden through all layers.

A dense convolution lets visible values flow into masked places, until after some layers nothing is
masked any more. These layers compute densely and set masked places to zero again (the emulation of
submanifold sparse convolution of SparK: Tian et al., ICLR 2023, section 3.1), so that they run on
any accelerator at full speed. The mask is an argument, [B, f, f, 1] on the grid of mask cells, and
is brought to the resolution of each layer by repetition. None: dense layers.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from maskjax.masking import Mask
from maskjax.models.batch_norm import BatchNorm
from maskjax.models.layers import convolve_groups
from maskjax.tokens import TokenGrid

# PyTorch's `kaiming_normal_(mode="fan_out", nonlinearity="relu")`.
kaiming = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


def active_cells(mask: Mask, grid: TokenGrid) -> jax.Array:
    """Returns float32 [B, rows, columns, 1]: 1 where a cell is visible."""
    return 1.0 - mask.is_masked.astype(jnp.float32).reshape(-1, *grid.shape, 1)


def active_at(active: jax.Array, height: int, width: int) -> jax.Array:
    """Repeats cells [B, f, g, 1] to a resolution that they divide: [B, height, width, 1]."""
    _, f, g, _ = active.shape
    return jnp.repeat(jnp.repeat(active, height // f, axis=1), width // g, axis=2)


def keep_active(x: jax.Array, active: jax.Array | None) -> jax.Array:
    """Sets masked places of [B, H, W, C] to zero."""
    if active is None:
        return x
    return x * active_at(active, *x.shape[1:3]).astype(x.dtype)


def sparse_max_pool(
    x: jax.Array, active: jax.Array | None, window: int = 3, stride: int = 2, padding: int = 1
) -> jax.Array:
    """Max-pooling of [B, H, W, C]; masked places are zeros for their neighbours."""
    y = nn.max_pool(x, (window, window), (stride, stride), ((padding, padding),) * 2)
    return keep_active(y, active)


class SparseConv(nn.Module):
    """Convolution with PyTorch's padding, then zeros at the masked places of its OUTPUT.

    Attributes:
      features: channels of the result.
      kernel: extent in pixels.
      stride: step in pixels.
      padding: zeros around the input; None: kernel // 2.
      groups: of channels that are convolved apart; `features` for a depthwise convolution.
      use_bias: whether there is a bias.
      dtype: of the computation.
      kernel_init: initialiser.
    """

    features: int
    kernel: int
    stride: int = 1
    padding: int | None = None
    groups: int = 1
    use_bias: bool = True
    dtype: jnp.dtype = jnp.float32
    kernel_init: nn.initializers.Initializer = kaiming

    @nn.compact
    def __call__(self, x: jax.Array, active: jax.Array | None = None) -> jax.Array:
        """[B, H, W, C] -> [B, H / stride, W / stride, features]."""
        padding = self.kernel // 2 if self.padding is None else self.padding
        y = nn.Conv(
            self.features,
            (self.kernel, self.kernel),
            self.stride,
            ((padding, padding),) * 2,
            feature_group_count=self.groups,
            use_bias=self.use_bias,
            dtype=self.dtype,
            kernel_init=self.kernel_init,
            conv_general_dilated=convolve_groups if self.groups > 1 else None,
            name="conv",
        )(x)
        return keep_active(y, active)


class SparseBatchNorm(nn.Module):
    """`BatchNorm` over the active positions of the whole batch; masked places become zero."""

    dtype: jnp.dtype = jnp.float32
    scale_init: nn.initializers.Initializer = nn.initializers.ones

    @nn.compact
    def __call__(self, x: jax.Array, active: jax.Array | None = None) -> jax.Array:
        """[B, H, W, C] -> the same shape."""
        if active is not None:
            active = active_at(active, *x.shape[1:3])
        return BatchNorm(dtype=self.dtype, scale_init=self.scale_init, name="norm")(x, active)


class SparseLayerNorm(nn.Module):
    """Layer normalisation of the channels of each position; masked places become zero."""

    dtype: jnp.dtype = jnp.float32
    epsilon: float = 1e-6

    @nn.compact
    def __call__(self, x: jax.Array, active: jax.Array | None = None) -> jax.Array:
        """[B, H, W, C] -> the same shape."""
        y = nn.LayerNorm(epsilon=self.epsilon, dtype=self.dtype, name="norm")(x)
        return keep_active(y, active)

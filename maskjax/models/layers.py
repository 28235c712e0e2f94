"""Small layers that blocks are made of: normalisation, activations, initialisers, the MLP."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype
from jax.ad_checkpoint import checkpoint_name

from maskjax.errors import UserError
from maskjax.parallel.devices import on_cpu
from maskjax.parallel.sharding import constrain_tensor, on_own_examples

HIDDEN = "hidden"  # the name under which `stack.REMAT_POLICIES` know the hidden layer of MLPs

xavier = nn.initializers.xavier_uniform()
# What PyTorch gives a linear layer that nobody initialises: uniform within 1 / sqrt(fan in).
torch_default = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def gelu(x: jax.Array) -> jax.Array:
    """Exact GELU (Hendrycks & Gimpel, 2016): x times the normal distribution function of x.

    Written with erf: `jax.nn.gelu` uses erfc, which costs three times as much on CPU and differs
    by rounding only.
    """
    # On CPUs XLA never computes an erf twice by itself, so it would be written out for the gradient
    # and the result computed in a second pass over it.
    return (jax.checkpoint(_gelu) if on_cpu() else _gelu)(x)


def _gelu(x: jax.Array) -> jax.Array:
    return x * (0.5 + 0.5 * jax.lax.erf(x * 0.5**0.5))


ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": gelu,
    "gelu_tanh": functools.partial(jax.nn.gelu, approximate=True),
}


def multiply_rows(x: jax.Array, kernel: jax.Array, dimensions: Any, **options: Any) -> jax.Array:
    """Multiplies the last axis by a matrix, [..., D] x [D, F] -> [..., F], as `lax.dot_general`.

    On CPUs the other axes become one. The gradient of the kernel sums over all of them, and where
    they are several, XLA copies both operands into other orders first and multiplies them at half
    the speed. On TPUs that reshape would be a copy itself: N is padded to tiles.
    """
    if x.ndim < 3 or not on_cpu():
        return jax.lax.dot_general(x, kernel, dimensions, **options)
    rows = x.reshape(-1, x.shape[-1])
    y = jax.lax.dot_general(rows, kernel, (((1,), (0,)), ((), ())), **options)
    return y.reshape(*x.shape[:-1], kernel.shape[1])


Dense = functools.partial(nn.Dense, dot_general=multiply_rows)


class Projection(nn.Module):
    """A linear layer that leaves it to the caller to add the bias.

    Attributes:
      features: F, the width of the result.
      use_bias: whether there is a bias.
      init_kernel: initialiser.
      dtype: of the computation.
    """

    features: int
    use_bias: bool
    init_kernel: Callable[..., jax.Array]
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array | None]:
        """[..., D] -> x times the kernel, [..., F], and the bias, [F] or None."""
        kernel = self.param("kernel", self.init_kernel, (x.shape[-1], self.features))
        bias = None
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,))
        x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)
        return multiply_rows(x, kernel, (((x.ndim - 1,), (0,)), ((), ()))), bias


def add_bias(x: jax.Array, bias: jax.Array | None, axes: int = 1) -> jax.Array:
    """Adds a bias [D], if there is one, to the last axes of x, whose sizes multiply to D."""
    if bias is None:
        return x
    return x + bias.reshape((1,) * (x.ndim - axes) + x.shape[x.ndim - axes :])


def convolve_groups(x: jax.Array, kernel: jax.Array, *args: Any, **kwargs: Any) -> jax.Array:
    """Computes `jax.lax.conv_general_dilated` for `feature_group_count` above 1, on any mesh.

    Left to itself XLA may gather the whole batch on every device (openxla/xla issue 47945; seen on
    CPUs, not in plans for TPUs). Where the mesh has an axis beside those of the batch, it also
    returns the gradient of the kernel so many times too large (CPUs, jaxlib 0.10.2 to 0.12.0).

    Args:
      x: [B, ..., C], split over the batch axes of the mesh.
      kernel: whole on every device.
      *args: of `jax.lax.conv_general_dilated`.
      **kwargs: of the same.
    """

    def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jax.lax.conv_general_dilated(x, kernel, *args, **kwargs)

    return on_own_examples(convolve, x, kernel)


def layer_norm(dtype: jnp.dtype, name: str | None = None, epsilon: float = 1e-6) -> nn.LayerNorm:
    """LayerNorm with MAE's epsilon; its statistics are computed in float32."""
    return nn.LayerNorm(epsilon=epsilon, dtype=dtype, name=name)


def unit_vectors(x: jax.Array) -> jax.Array:
    """Divides by the norm of the last axis, in float32; zero stays zero, with a finite gradient."""
    x = x.astype(jnp.float32)
    return x * jax.lax.rsqrt(jnp.maximum((x**2).sum(axis=-1, keepdims=True), 1e-24))


def truncated_normal(std: float = 0.02, cut: float = 2.0) -> Callable[..., jax.Array]:
    """Initialiser: N(0, std) redrawn until within `cut` standard deviations of zero.

    The spread is that of the normal distribution before it is cut, as in the reference codes.
    """

    def init(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype = jnp.float32) -> jax.Array:
        return std * jax.random.truncated_normal(key, -cut, cut, shape, dtype)

    return init


# Kernels of a block by the name of its `init`. "beit" cuts at one standard deviation, as BEiT's
# and SimMIM's pretraining codes do; `Transformer` also divides its output kernels by depth.
KERNEL_INITS: dict[str, Callable[..., jax.Array]] = {
    "xavier": xavier,
    "normal": truncated_normal(0.02),
    "beit": truncated_normal(0.02, cut=1.0),
}


T = TypeVar("T")


def chosen(table: Mapping[str, T], name: str, what: str) -> T:
    """Returns an entry of a table of options.

    Raises:
      UserError: there is no such entry.
    """
    if name not in table:
        raise UserError(f"{what} must be one of {', '.join(table)}, not '{name}'.")
    return table[name]


class MLP(nn.Module):
    """Two linear layers with an activation between them.

    Attributes:
      hidden: width between the layers.
      dtype: of the computation.
      activation: a name of `ACTIVATIONS`.
      init_kernel: a name of `KERNEL_INITS`.
    """

    hidden: int
    dtype: jnp.dtype = jnp.float32
    activation: str = "gelu"
    init_kernel: str = "xavier"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, N, D] -> [B, N, D]."""
        d = x.shape[-1]
        kernel = chosen(KERNEL_INITS, self.init_kernel, "init_kernel")
        x = Dense(self.hidden, kernel_init=kernel, dtype=self.dtype, name="up")(x)
        x = checkpoint_name(constrain_tensor(x, x.ndim - 1), HIDDEN)
        x = chosen(ACTIVATIONS, self.activation, "activation")(x)
        return Dense(d, kernel_init=kernel, dtype=self.dtype, name="down")(x)


class LayerScale(nn.Module):
    """Multiplies every channel by a learned factor (Touvron et al., 2021, CaiT).

    Attributes:
      initial: value of the factors at the start; small ones make deep stacks trainable.
    """

    initial: float

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, N, D] -> [B, N, D]."""
        scale = self.param("scale", nn.initializers.constant(self.initial), (x.shape[-1],))
        return x * scale.astype(x.dtype)[None, None, :]

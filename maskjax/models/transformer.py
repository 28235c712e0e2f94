"""Pre-norm transformer blocks and stacks of them."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from maskjax.errors import UserError
from maskjax.parallel.sharding import constrain_batch

xavier = nn.initializers.xavier_uniform()

# What the backward pass may keep of a block; the rest is computed again. None: keep everything.
REMAT_POLICIES: dict[str, Callable | None] = {
    "none": None,
    "full": jax.checkpoint_policies.nothing_saveable,
    "dots": jax.checkpoint_policies.dots_saveable,
    "dots_with_no_batch_dims": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}


def layer_norm(dtype: jnp.dtype, name: str) -> nn.LayerNorm:
    """LayerNorm with MAE's epsilon; its statistics are computed in float32."""
    return nn.LayerNorm(epsilon=1e-6, dtype=dtype, name=name)


def gelu(x: jax.Array) -> jax.Array:
    """Exact GELU (Hendrycks & Gimpel, 2016): x times the normal distribution function of x.

    Written with erf: `jax.nn.gelu` uses erfc, which costs three times as much on CPU and differs
    by rounding only.
    """
    return x * (0.5 + 0.5 * jax.lax.erf(x * 0.5**0.5))


class Attention(nn.Module):
    """Multi-head self-attention with biases; softmax in float32.

    Query, key and value have kernels [D, D] of their own: these tile well on TPUs and split by
    heads, which one kernel of [D, 3 D] does not.
    """

    heads: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, N, D] -> [B, N, D]."""
        b, n, d = x.shape

        def project(name: str) -> jax.Array:
            return nn.Dense(d, kernel_init=xavier, dtype=self.dtype, name=name)(x)

        q, k, v = (
            project(name).reshape(b, n, self.heads, d // self.heads)
            for name in ("query", "key", "value")
        )
        x = jax.nn.dot_product_attention(q, k, v).reshape(b, n, d)
        return nn.Dense(d, kernel_init=xavier, dtype=self.dtype, name="out")(x)


class MLP(nn.Module):
    """Two linear layers with an exact (erf) GELU between them."""

    hidden: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, N, D] -> [B, N, D]."""
        d = x.shape[-1]
        x = nn.Dense(self.hidden, kernel_init=xavier, dtype=self.dtype, name="up")(x)
        x = gelu(x)
        return nn.Dense(d, kernel_init=xavier, dtype=self.dtype, name="down")(x)


class Block(nn.Module):
    """Pre-norm ViT block (Dosovitskiy et al., 2021): x + attention(norm x), x + mlp(norm x)."""

    heads: int
    mlp_ratio: float = 4.0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, N, D] -> [B, N, D]."""
        x = constrain_batch(x)
        y = layer_norm(self.dtype, "norm1")(x)
        x = x + Attention(self.heads, self.dtype, name="attention")(y)
        y = layer_norm(self.dtype, "norm2")(x)
        hidden = round(x.shape[-1] * self.mlp_ratio)
        x = x + MLP(hidden, self.dtype, name="mlp")(y)
        return constrain_batch(x)


class Transformer(nn.Module):
    """A stack of equal blocks.

    The parameters of all blocks lie in one tree with a leading axis of `depth`, whatever the
    execution: `scan=True` compiles one block and loops over it, `scan=False` unrolls. So a
    checkpoint does not know which was used, and neither does an optimiser.

    Attributes:
      depth: number of blocks.
      heads: attention heads.
      mlp_ratio: hidden width of the MLP relative to D.
      scan: loop instead of unrolling; compiles faster, for deep stacks on accelerators.
      remat: a name of `REMAT_POLICIES`.
      dtype: of the computation.
    """

    depth: int
    heads: int
    mlp_ratio: float
    scan: bool
    remat: str
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, Any]:
        """[B, N, D] -> ([B, N, D], outputs of every block, indexed by block)."""
        if x.shape[-1] % self.heads:
            raise UserError(
                f"A width of {x.shape[-1]} is not divisible by {self.heads} attention heads."
            )
        if self.remat not in REMAT_POLICIES:
            raise UserError(
                f"remat must be one of {', '.join(REMAT_POLICIES)}, not '{self.remat}'."
            )
        block = Block(self.heads, self.mlp_ratio, self.dtype, parent=None)
        example = jax.ShapeDtypeStruct((1, *x.shape[1:]), x.dtype)

        def init_blocks(rng: jax.Array) -> Any:
            zeros = jnp.zeros(example.shape, example.dtype)
            return jax.vmap(lambda key: block.init(key, zeros)["params"])(
                jax.random.split(rng, self.depth)
            )

        params = self.param("blocks", init_blocks)

        def apply(x: jax.Array, block_params: Any) -> jax.Array:
            return block.apply({"params": block_params}, x)

        if self.remat != "none":
            apply = jax.checkpoint(apply, policy=REMAT_POLICIES[self.remat])
        if self.scan:

            def body(x: jax.Array, block_params: Any) -> tuple[jax.Array, jax.Array]:
                x = apply(x, block_params)
                return x, x

            return jax.lax.scan(body, x, params)
        outputs = []
        for block_params in _unstack(params, self.depth):
            x = apply(x, block_params)
            outputs.append(x)
        return x, outputs


def _unstack(params: Any, depth: int) -> list[Any]:
    """Splits the leading axis of every leaf; the gradient is one concatenation."""
    leaves, tree = jax.tree.flatten(params)
    parts = [jax.lax.split(leaf, [1] * depth) for leaf in leaves]
    return [tree.unflatten([part[i].squeeze(0) for part in parts]) for i in range(depth)]

"""Stacks of equal blocks of any kind, with one tree of parameters for all of them."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from maskjax.errors import UserError
from maskjax.models.transformer import REMAT_POLICIES


def apply_stack(
    parent: nn.Module,
    block: nn.Module,
    depth: int,
    x: jax.Array,
    *shared: Any,
    rng: jax.Array | None = None,
    scan: bool = False,
    remat: str = "none",
) -> tuple[jax.Array, Any]:
    """Runs `depth` blocks, whose parameters are `blocks` [depth, ...] of the parent.

    To be called inside the parent's compact method. As in `Transformer`, the parameters do not
    depend on how the stack is executed.

    Args:
      parent: owner of the parameters.
      block: template, made with `parent=None`; called as block(x, *shared, rng).
      depth: number of blocks.
      x: [B, N, D].
      *shared: what every block gets besides.
      rng: key of dropout, another one for every block; None: deterministic.
      scan: loop instead of unrolling.
      remat: a name of `REMAT_POLICIES`.

    Returns:
      The output of the last block, and those of all blocks, indexed by block.
    """
    if remat not in REMAT_POLICIES:
        raise UserError(f"remat must be one of {', '.join(REMAT_POLICIES)}, not '{remat}'.")

    def init(key: jax.Array) -> Any:
        keys = jax.random.split(key, depth)
        return jax.vmap(lambda key: block.init(key, x, *shared, None)["params"])(keys)

    params = parent.param("blocks", init)

    def apply(x: jax.Array, block_params: Any, index: jax.Array) -> jax.Array:
        key = None if rng is None else jax.random.fold_in(rng, index)
        y: Any = block.apply({"params": block_params}, x, *shared, key)
        return y

    run = apply if remat == "none" else jax.checkpoint(apply, policy=REMAT_POLICIES[remat])
    if scan:

        def body(x: jax.Array, each: Any) -> tuple[jax.Array, jax.Array]:
            x = run(x, *each)
            return x, x

        return jax.lax.scan(body, x, (params, jnp.arange(depth)))
    outputs = []
    for i in range(depth):
        x = run(x, jax.tree.map(lambda leaf, i=i: leaf[i], params), jnp.asarray(i))
        outputs.append(x)
    return x, outputs


def dropout(x: jax.Array, rate: float, rng: jax.Array | None) -> jax.Array:
    """Zeroes values with probability `rate` and divides the others by 1 - rate; no key: neither."""
    if rng is None or rate == 0.0:
        return x
    kept = jax.random.bernoulli(rng, 1.0 - rate, x.shape)
    return jnp.where(kept, x / jnp.asarray(1.0 - rate, x.dtype), jnp.zeros_like(x))

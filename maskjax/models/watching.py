"""Seeing the weights of attention, which the fused function that computes it does not return."""

import contextlib
from collections.abc import Callable, Generator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from maskjax.models.attention import Attention
from maskjax.models.layers import add_bias


def attention_weights(
    q: jax.Array,
    k: jax.Array,
    mask: jax.Array | None = None,
    bias: jax.Array | None = None,
    scale: float | None = None,
) -> jax.Array:
    """Computes softmax(scale q k^T + bias), by which attention weighs its values.

    Args:
      q: [B, N, heads, D], queries.
      k: [B, M, heads, D], keys.
      mask: bool, broadcastable to [B, heads, N, M]; True = may be attended.
      bias: float, broadcastable to [B, heads, N, M], added to the logits.
      scale: of the logits; None: 1 / sqrt(D).

    Returns:
      float32 [B, heads, N, M]; every row sums to 1.
    """
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    logits = jnp.einsum("bnhd,bmhd->bhnm", q, k, preferred_element_type=jnp.float32) * scale
    if bias is not None:
        logits = logits + jnp.broadcast_to(bias, logits.shape)
    if mask is not None:
        logits = jnp.where(mask, logits, -0.7 * jnp.finfo(jnp.float32).max)
    return jax.nn.softmax(logits, axis=-1)


@contextlib.contextmanager
def watch_attention() -> Generator[list[jax.Array]]:
    """Collects the weights of every `Attention` that is called inside, in order.

    Yields a list that fills with float32 [B, heads, N, M]. Under jit, enter it inside the function,
    return what is wanted of the list, and XLA drops the rest. Blocks that are looped over by `scan`
    or computed again by `remat` cannot be watched: see `unrolled`.
    """
    seen: list[jax.Array] = []

    def watch(
        call: Callable, arguments: tuple, keywords: dict, context: nn.module.InterceptorContext
    ) -> Any:
        if isinstance(context.module, Attention) and context.method_name == "attend":
            q, k, _, *rest, query_bias = arguments
            seen.append(attention_weights(add_bias(q, query_bias, axes=2), k, *rest))
        return call(*arguments, **keywords)

    # A block is a jitted function of its own (`stack.apply_block`), out of which nothing leaks.
    with jax.disable_jit(), nn.intercept_methods(watch):
        yield seen


def unrolled(module: nn.Module) -> nn.Module:
    """Returns the same network, for the same parameters, with its blocks one after the other."""
    plain: dict[str, Any] = {"scan": False, "remat": "none"}
    return module.clone(**{name: v for name, v in plain.items() if hasattr(module, name)})

"""Multi-head attention of a sequence to itself or another, with masks, biases, cosine logits."""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from maskjax.errors import UserError
from maskjax.models.layers import KERNEL_INITS, Projection, add_bias, chosen, unit_vectors
from maskjax.parallel.devices import on_cpu
from maskjax.parallel.sharding import constrain_tensor, in_parts

# Which of the three projections have a bias. The one of the keys has no influence on the softmax
# (it adds the same to every logit of a query), so BEiT and VideoMAE leave it out.
BIASES = {"qkv": ("query", "key", "value"), "qv": ("query", "value"), "none": ()}

KEPT = "attention"  # the name under which recomputation (`stack.REMAT_POLICIES`) keeps the result

_HIDDEN = -0.7 * float(jnp.finfo(jnp.float32).max)  # finite, as in JAX: a row of it has a softmax

COSINE_SCALE = 10.0  # initial inverse temperature of cosine attention
COSINE_LIMIT = 4.6052  # of its logarithm, i.e. a factor of 100 (as the reference rounds it)


class Attention(nn.Module):
    """Multi-head attention; logits and softmax in float32.

    Query, key and value have kernels [in, D] of their own: these tile well on TPUs and split by
    heads, which one kernel of [D, 3 D] does not. `out`, where it is, always has a bias.

    Attributes:
      heads: number of heads; they divide D.
      dtype: of the computation.
      bias: which projections have a bias: "qkv", "qv" or "none".
      cosine: logits are cosines of query and key times a learned factor per head, whose logarithm
        `scale` [heads] is clamped at log 100 (Liu et al., 2022, Swin V2; used by VideoMAE V2).
      init_kernel: a name of `KERNEL_INITS`.
      at_once: how many examples of a device are read at a time (`parallel.sharding.in_parts`);
        None: all. On TPUs the logits of a few stay on the chip.
      project_out: whether a last linear layer, `out`, mixes the heads; without it they stand side
        by side.
    """

    heads: int
    dtype: jnp.dtype = jnp.float32
    bias: str = "qkv"
    cosine: bool = False
    init_kernel: str = "xavier"
    at_once: int | None = None
    project_out: bool = True

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        context: jax.Array | None = None,
        mask: jax.Array | None = None,
        bias: jax.Array | None = None,
        values: jax.Array | None = None,
    ) -> jax.Array:
        """Lets every token of `x` read from the context.

        Args:
          x: [B, N, D], the queries.
          context: [B, M, E], what is read; None: `x` itself.
          mask: bool, broadcastable to [B, heads, N, M]; True = may be attended. A query that may
            attend nothing gets the mean over everything.
          bias: float, broadcastable to [B, heads, N, M], added to the logits.
          values: [B, M, E], what the values are made of; None: the context, as the keys.

        Returns:
          [B, N, D].
        """
        if self.bias not in BIASES:
            raise UserError(
                f"The bias of attention must be one of {', '.join(BIASES)}, not '{self.bias}'."
            )
        if self.at_once is not None and self.at_once < 1:
            raise UserError(f"Attention reads at least one example at a time, not {self.at_once}.")
        d = x.shape[-1]
        if d % self.heads:
            raise UserError(f"A width of {d} is not divisible by {self.heads} attention heads.")
        kernel = chosen(KERNEL_INITS, self.init_kernel, "init_kernel")
        context = x if context is None else context

        # The gradient of a bias sums over all tokens. After parts that would be a pass of its own
        # over what the loop has written, so biases wait for a place where it costs less.
        apart = self.at_once is not None and not self.cosine

        def project(name: str, source: jax.Array) -> tuple[jax.Array, jax.Array | None]:
            biased = name in BIASES[self.bias]
            y, bias = Projection(d, biased, kernel, self.dtype, name=name)(source)
            if not apart:
                y, bias = add_bias(y, bias), None
            y = y.reshape(*source.shape[:2], self.heads, d // self.heads)
            return constrain_tensor(y, 2), bias

        values = context if values is None else values
        q, query_bias = project("query", x)
        k, _ = project("key", context)  # a bias adds the same to all logits of a query
        v, value_bias = project("value", values)
        scale = None  # 1 / sqrt(D / heads)
        if self.cosine:
            start = nn.initializers.constant(math.log(COSINE_SCALE))
            log_scale = self.param("scale", start, (self.heads,))
            factor = jnp.exp(jnp.minimum(log_scale, COSINE_LIMIT))
            q = (unit_vectors(q) * factor[None, None, :, None]).astype(self.dtype)
            k, scale = unit_vectors(k).astype(self.dtype), 1.0
        y = self.attend(q, k, v, _four_axes(mask), _four_axes(bias), scale, query_bias)
        y = y.reshape(*x.shape[:2], d)
        if not on_cpu():  # `heads_first` keeps it in its own order
            y = checkpoint_name(y, KEPT)
        if not self.project_out:
            return add_bias(y, value_bias)
        out = Projection(d, True, kernel, self.dtype, name="out")
        y, out_bias = out(y)
        if value_bias is not None:  # weights sum to one, so it comes out as it went in
            out_bias = add_bias(out(value_bias)[0], out_bias)
        return add_bias(y, out_bias)

    def attend(
        self,
        q: jax.Array,
        k: jax.Array,
        v: jax.Array,
        mask: jax.Array | None,
        bias: jax.Array | None,
        scale: float | None,
        query_bias: jax.Array | None,
    ) -> jax.Array:
        """Reads the values: [B, N, heads, D / heads]. A method, so that it can be watched.

        Args:
          q: [B, N, heads, D / heads], queries.
          k: [B, M, heads, D / heads], keys.
          v: [B, M, heads, D / heads], values.
          mask: see `__call__`, with four axes.
          bias: see `__call__`, with four axes.
          scale: of the logits; None: 1 / sqrt(D / heads).
          query_bias: [D], still to be added to the queries; None: nothing is.
        """
        attention = heads_first if on_cpu() else jax.nn.dot_product_attention
        given: dict[str, Any] = {"mask": mask, "bias": bias}
        # Every example has one of its own, or all have the same.
        own = {n: x for n, x in given.items() if x is not None and x.shape[0] == q.shape[0]}

        def read(q: jax.Array, k: jax.Array, v: jax.Array, *parts: jax.Array) -> jax.Array:
            named: dict[str, Any] = given | dict(zip(own, parts, strict=True))
            return attention(add_bias(q, query_bias, axes=2), k, v, scale=scale, **named)

        if self.at_once is None:
            return read(q, k, v, *own.values())
        return in_parts(read, self.at_once, q, k, v, *own.values())


def heads_first(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    mask: jax.Array | None,
    bias: jax.Array | None,
    scale: float | None,
) -> jax.Array:
    """Computes what `jax.nn.dot_product_attention` does, in an order that CPUs like.

    Examples and heads come first, so that every product of the forward and the backward pass is one
    of matrices as they lie in memory. JAX's order makes XLA copy the weights [B, heads, N, M] into
    another order for the gradients of keys and values. The backward pass keeps one array of that
    size, the weights.

    Args:
      q: [B, N, heads, D], queries.
      k: [B, M, heads, D], keys.
      v: [B, M, heads, D], values.
      mask: bool, broadcastable to [B, heads, N, M]; True = may be attended. A query that may attend
        nothing gets the mean over everything.
      bias: float, broadcastable to [B, heads, N, M], added to the logits.
      scale: of the logits; None: 1 / sqrt(D).

    Returns:
      [B, N, heads, D] in the dtype of `v`; logits and softmax in float32.
    """
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    # The queries are scaled, in float32, since XLA would fill an array as large as the logits with
    # the scale.
    q, k = scale * q.astype(jnp.float32), k.astype(jnp.float32)
    q, k, v = (x.transpose(0, 2, 1, 3) for x in (q, k, v))
    logits = _product(q, k, 3, 3)
    if bias is not None:
        logits = logits + bias
    if mask is not None:
        logits = jnp.where(mask, logits, _HIDDEN)
    return _weighed(logits, v).transpose(0, 2, 1, 3).astype(v.dtype)


def _product(x: jax.Array, y: jax.Array, axis: int, other: int) -> jax.Array:
    """Sums over an axis of x and one of y, for every example and head, in float32."""
    dimensions = (((axis,), (other,)), ((0, 1), (0, 1)))
    return jax.lax.dot_general(x, y, dimensions, preferred_element_type=jnp.float32)


@jax.custom_vjp
def _weighed(logits: jax.Array, v: jax.Array) -> jax.Array:
    """[B, heads, N, M], [B, heads, M, D] -> softmax of the logits times v, [B, heads, N, D].

    The gradient of the softmax needs the sum of weights x their gradients. That is result x its
    gradient, over D instead of M, so the weights are all that is kept of the size of the logits.
    """
    return _weighed_and_kept(logits, v)[0]


def _weighed_and_kept(logits: jax.Array, v: jax.Array) -> tuple[jax.Array, Any]:
    weights = jax.nn.softmax(logits, axis=-1).astype(v.dtype)
    y = checkpoint_name(_product(weights, v, 3, 2), KEPT)
    return y, (weights, v, y)


def _gradients_of_weighed(kept: Any, grad: jax.Array) -> tuple[jax.Array, jax.Array]:
    weights, v, y = kept
    mean = (grad * y).sum(axis=-1, keepdims=True)
    grad = grad.astype(v.dtype)
    of_logits = weights * (_product(grad, v, 3, 3) - mean)
    of_v = _product(weights, grad, 2, 2).astype(v.dtype)
    # Queries and keys both read it: without the barrier it is computed twice.
    return jax.lax.optimization_barrier(of_logits), of_v


_weighed.defvjp(_weighed_and_kept, _gradients_of_weighed)


def _four_axes(x: jax.Array | None) -> jax.Array | None:
    """Adds leading axes of one, which stand for all examples and heads."""
    return None if x is None else x.reshape((1,) * (4 - x.ndim) + x.shape)

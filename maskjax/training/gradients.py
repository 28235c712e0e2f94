"""The objective and its gradient, over one batch or several micro-batches."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from maskjax.systems import System

Metrics = dict[str, jax.Array]


def loss_and_gradients(
    system: System,
    variables: dict[str, Any],
    batch: Mapping[str, jax.Array],
    masks: Any,
    rngs: Mapping[str, jax.Array],
    accumulate: int = 1,
) -> tuple[jax.Array, Any, Metrics, Any]:
    """Returns loss, gradients with respect to `variables["params"]`, metrics, renewed statistics.

    The loss is the weighted sum over terms of total / count, with the count over the whole batch.
    With micro-batches the counts are summed first (a pass in which XLA keeps nothing but what the
    counts need), so the gradient is that of the whole batch whatever their number. Running
    statistics are the mean of those that the micro-batches renewed.

    Args:
      system: the method.
      variables: its variables.
      batch: arrays [B, ...].
      masks: tree of arrays [B, ...].
      rngs: keys of the random streams.
      accumulate: micro-batches; divides B.
    """

    def objective(params: Any, batch: Any, masks: Any, rngs: Any, counts: Any) -> Any:
        values, stats = system.jitted_terms({**variables, "params": params}, batch, masks, rngs)
        counts = {name: v.count for name, v in values.items()} if counts is None else counts
        means = {n: v.total / jnp.maximum(counts[n], 1.0) for n, v in values.items()}
        loss = sum(system.terms[name].weight * mean for name, mean in means.items())
        metrics = {f"terms/{name}": mean for name, mean in means.items()}
        further = {f"terms/{n}/{k}": m for n, v in values.items() for k, m in v.metrics.items()}
        return loss, (metrics, further, stats)

    gradient = jax.value_and_grad(objective, has_aux=True)
    if accumulate == 1:
        (loss, (metrics, further, stats)), grads = gradient(
            variables["params"], batch, masks, rngs, counts=None
        )
        return loss, grads, metrics | further, stats

    def split(x: jax.Array) -> jax.Array:
        # Strided, so that each micro-batch has examples of every device.
        return x.reshape(x.shape[0] // accumulate, accumulate, *x.shape[1:]).swapaxes(0, 1)

    batches, mask_parts = jax.tree.map(split, (dict(batch), masks))
    keys = {name: jax.random.split(key, accumulate) for name, key in rngs.items()}

    def count(part: Any) -> Any:
        values, _ = system.jitted_terms(variables, *part)
        return {name: value.count for name, value in values.items()}

    parts = (batches, mask_parts, keys)
    counts = jax.tree.map(lambda c: c.sum(axis=0), jax.lax.map(count, parts))

    def micro_batch(part: Any) -> Any:
        (loss, (metrics, further, stats)), grads = gradient(variables["params"], *part, counts)
        return (loss, grads, metrics), (further, stats)

    def add(total: Any, part: Any) -> tuple[Any, Any]:
        summands, others = micro_batch(part)
        return jax.tree.map(jnp.add, total, summands), others

    shapes, _ = jax.eval_shape(micro_batch, jax.tree.map(lambda x: x[0], parts))
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    (loss, grads, metrics), others = jax.lax.scan(add, zeros, parts)
    further, stats = jax.tree.map(lambda x: x.mean(axis=0), others)
    return loss, grads, metrics | further, stats

"""Batch normalisation with running statistics, also over a subset of the positions."""

import flax.linen as nn
import jax
import jax.numpy as jnp


class BatchNorm(nn.Module):
    """Batch normalisation (Ioffe & Szegedy, 2015) with PyTorch's conventions.

    While training, channels are normalised by mean and biased variance over the batch and all
    positions; the running statistics move by `momentum` towards the mean and the UNBIASED variance.
    In evaluation the running statistics are used. Which of both is decided by the collection
    `batch_stats`: `apply(..., mutable=["batch_stats"])` trains, otherwise it is evaluation.

    Under `jit` the batch is the global one, so the statistics are exact on any mesh.

    `nn.BatchNorm` of Flax moves towards the biased variance, and takes no weighting of positions
    whose number counts in both variances.

    Attributes:
      momentum: weight of the new statistics.
      epsilon: added to the variance.
      dtype: of the result; statistics are float32.
      scale_init: of the learned scale.
      affine: whether a scale and a bias are learned.
    """

    momentum: float = 0.1
    epsilon: float = 1e-5
    dtype: jnp.dtype = jnp.float32
    scale_init: nn.initializers.Initializer = nn.initializers.ones
    affine: bool = True

    @nn.compact
    def __call__(self, x: jax.Array, active: jax.Array | None = None) -> jax.Array:
        """Normalises [..., C].

        Args:
          x: [..., C].
          active: bool or float, broadcastable to [..., 1]: statistics are taken over positions
            where it is 1, and the result is 0 elsewhere. None: all positions.
        """
        c = x.shape[-1]
        mean = self.variable("batch_stats", "mean", jnp.zeros, (c,), jnp.float32)
        var = self.variable("batch_stats", "var", jnp.ones, (c,), jnp.float32)
        scale, bias = jnp.ones(c), jnp.zeros(c)
        if self.affine:
            scale = self.param("scale", self.scale_init, (c,))
            bias = self.param("bias", nn.initializers.zeros, (c,))
        if self.is_mutable_collection("batch_stats"):
            used, biased, unbiased = _statistics(x.astype(jnp.float32), active)
            if not self.is_initializing():
                mean.value += self.momentum * (jax.lax.stop_gradient(used) - mean.value)
                var.value += self.momentum * (jax.lax.stop_gradient(unbiased) - var.value)
        else:
            used, biased = mean.value, var.value
        shape = (1,) * (x.ndim - 1) + (c,)
        factor = (jax.lax.rsqrt(biased + self.epsilon) * scale).reshape(shape)
        y = (x.astype(jnp.float32) - used.reshape(shape)) * factor + bias.reshape(shape)
        if active is not None:
            y = y * active.astype(jnp.float32)
        return y.astype(self.dtype)


def _statistics(x: jax.Array, active: jax.Array | None) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns mean, biased and unbiased variance of each channel, over the active positions."""
    axes = tuple(range(x.ndim - 1))
    if active is None:
        weights, count = 1.0, float(x.size // x.shape[-1])
    else:
        weights = jnp.broadcast_to(active.astype(jnp.float32), (*x.shape[:-1], 1))
        count = jnp.maximum(weights.sum(), 1.0)
    mean = (x * weights).sum(axis=axes) / count
    # Twice over the data: the mean of squares minus the squared mean cancels.
    centred = x - mean.reshape((1,) * len(axes) + (-1,))
    squares = (jnp.square(centred) * weights).sum(axis=axes)
    return mean, squares / count, squares / jnp.maximum(count - 1.0, 1.0)

"""Which precision a network computes in."""

import jax
import jax.numpy as jnp

from maskjax.errors import UserError


def compute_dtype(name: str) -> jnp.dtype:
    """Returns the dtype of activations and matmuls; parameters, losses and statistics stay float32.

    Args:
      name: "float32", "bfloat16", or "auto": bfloat16 on TPU and GPU, float32 on CPU.
    """
    if name == "auto":
        name = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    if name not in ("float32", "bfloat16"):
        raise UserError(f"dtype must be 'auto', 'float32' or 'bfloat16', not '{name}'.")
    return jnp.dtype(name)

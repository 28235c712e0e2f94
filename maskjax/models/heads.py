"""Small networks that read one output of another network and predict something from it."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from maskjax.models.layers import Dense, xavier
from maskjax.models.precision import compute_dtype


class Projection(nn.Module):
    """A linear map of every token to another width, e.g. that of a teacher (DMAE, MR-MAE).

    Attributes:
      source: path of what it reads in the outputs of the system, e.g. "encoder.blocks.8".
      width: of the result.
      dtype: of the computation, see `compute_dtype`.
    """

    source: str
    width: int
    dtype: str = "auto"

    @nn.compact
    def __call__(self, x: jax.Array) -> dict[str, Any]:
        """[..., D] -> `prediction`, float32 [..., width]."""
        dtype = compute_dtype(self.dtype)
        dense = Dense(self.width, kernel_init=xavier, dtype=dtype, name="linear")
        return {"prediction": dense(x).astype(jnp.float32)}

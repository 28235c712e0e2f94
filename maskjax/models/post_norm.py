"""The block of the original transformer, with its norms behind the branches."""

import flax.linen as nn
import jax

from maskjax.models.attention import Attention
from maskjax.models.layers import MLP, layer_norm
from maskjax.models.precision import compute_dtype
from maskjax.models.stack import dropout
from maskjax.parallel.sharding import constrain_batch


class PostNormBlock(nn.Module):
    """norm(x + attention(x)), then norm(x + mlp(x)) (Vaswani et al., 2017).

    BERT, MaskGIT, wav2vec 2.0 Base and HuBERT Base are made of it.

    Attributes:
      heads: attention heads.
      mlp_ratio: hidden width of the MLP relative to D.
      epsilon: of the norms.
      dropout: rate after attention and MLP; attention itself drops nothing.
      activation: of the MLP, "gelu" (exact) or "gelu_tanh".
      dtype: of the computation, see `compute_dtype`.
    """

    heads: int = 12
    mlp_ratio: float = 4.0
    epsilon: float = 1e-12
    dropout: float = 0.1
    activation: str = "gelu"
    dtype: str = "auto"

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        context: jax.Array | None = None,
        mask: jax.Array | None = None,
        rng: jax.Array | None = None,
    ) -> jax.Array:
        """Queries [B, N, D] and context [B, M, D] (None: the queries themselves) -> [B, N, D].

        Args:
          x: queries, which the residual connections add to.
          context: keys and values.
          mask: bool, broadcastable to [B, heads, N, M], True = may be attended. A row that may
            attend nothing gets the mean over everything.
          rng: key of dropout; None: nothing is dropped.
        """
        dtype = compute_dtype(self.dtype)
        x = constrain_batch(x)
        first, second = (None, None) if rng is None else jax.random.split(rng)
        y = Attention(self.heads, dtype, init_kernel="normal", name="attention")(x, context, mask)
        x = layer_norm(dtype, "norm1", self.epsilon)(x + dropout(y, self.dropout, first))
        hidden = round(x.shape[-1] * self.mlp_ratio)
        y = MLP(hidden, dtype, self.activation, init_kernel="normal", name="mlp")(x)
        x = layer_norm(dtype, "norm2", self.epsilon)(x + dropout(y, self.dropout, second))
        return constrain_batch(x)

"""The head of attentive probes: a learned query reads the patch tokens."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from maskjax.models.attention import Attention
from maskjax.models.batch_norm import BatchNorm
from maskjax.models.class_head import outputs, tokens
from maskjax.models.layers import MLP, Dense, chosen, layer_norm, truncated_normal


class QueryPooling(nn.Module):
    """One cross-attention of a learned query, as in CAE's attentive probe.

    Query, keys and values have a LayerNorm each (Chen et al., 2022, arXiv 2202.03026). What was
    read is the result: it is not added to the query, and no MLP follows. The query is zero at
    first, so that all tokens are read alike.

    Attributes:
      heads: of the attention.
    """

    heads: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """float32 [B, N, D] -> [B, D]."""
        query, keys, values = (
            layer_norm(jnp.float32, f"norm_{name}")(each)
            for name, each in (
                ("query", _query(self, x, nn.initializers.zeros)),
                ("key", x),
                ("value", x),
            )
        )
        return Attention(self.heads, name="attention")(query, keys, values=values)[:, 0]


class BlockPooling(nn.Module):
    """A block of cross-attention and MLP around a learned query, as in V-JEPA's attentive probe.

    q <- q + attention(q, norm x), q + MLP(norm q). The query is not normalised before the
    attention, which has no linear layer behind its heads (Bardes et al., 2024, arXiv 2404.08471).

    Attributes:
      heads: of the attention.
    """

    heads: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """float32 [B, N, D] -> [B, D]."""
        query, read = _query(self, x, truncated_normal()), layer_norm(jnp.float32, "norm_tokens")(x)
        query = query + Attention(self.heads, project_out=False, name="attention")(query, read)
        mlp = MLP(4 * x.shape[-1], name="mlp")
        return (query + mlp(layer_norm(jnp.float32, "norm_mlp")(query)))[:, 0]


POOLINGS = {"query": QueryPooling, "block": BlockPooling}


class AttentiveHead(nn.Module):
    """Logits of what a learned query finds among the patch tokens.

    Everything is computed in float32. With "query" a BatchNorm without scale and bias stands before
    the linear layer, as in CAE's probe.

    Attributes:
      classes: number of classes V.
      source: path of what it reads in the outputs of the system: tokens [B, S, D], of which the
        patches are the last; a vector [B, D] is one token.
      pooling: "query" (CAE) or "block" (V-JEPA).
      heads: of the attention; the configurations give it as many as the encoder has.
      std: of the initial weights of the linear layer, normally distributed and cut at two
        deviations.
    """

    classes: int
    source: str = "encoder.patches"
    pooling: str = "query"
    heads: int = 12
    std: float = 0.02

    @nn.compact
    def __call__(
        self,
        out: Any,
        patches: int,
        real: jax.Array | None = None,
    ) -> dict[str, jax.Array]:
        """Classifies; arguments and result as those of `ClassHead`.

        Raises:
          UserError: an unknown pooling, a source that is neither tokens nor a vector, or a width
            that the heads do not divide.
        """
        pooling = chosen(POOLINGS, self.pooling, "pooling")
        x = pooling(self.heads, name="pool")(tokens(out, self.source, patches))
        if self.pooling == "query":
            active = None if real is None else real[:, None]
            x = BatchNorm(affine=False, name="norm")(x, active)
        logits = Dense(self.classes, kernel_init=truncated_normal(self.std), name="linear")(x)
        return outputs(x, logits)


def _query(module: nn.Module, x: jax.Array, init: nn.initializers.Initializer) -> jax.Array:
    """Returns the learned query of a module for every example: [B, 1, D]."""
    query = module.param("query", init, (1, x.shape[-1]))
    return jnp.broadcast_to(query, (x.shape[0], 1, x.shape[-1]))

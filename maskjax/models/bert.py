"""BERT: the post-norm encoder of text with its language-modelling head (Devlin et al., 2019)."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from maskjax.errors import UserError
from maskjax.models.attention import Attention
from maskjax.models.layers import MLP, gelu, layer_norm, truncated_normal
from maskjax.models.precision import compute_dtype
from maskjax.models.transformer import REMAT_POLICIES
from maskjax.parallel.sharding import constrain_batch


def dropout(x: jax.Array, rate: float, rng: jax.Array | None) -> jax.Array:
    """Zeroes values with probability `rate` and divides the others by 1 - rate; no key: nothing."""
    if rng is None or rate == 0:
        return x
    survives = jax.random.bernoulli(rng, 1 - rate, x.shape)
    return jnp.where(survives, x / jnp.asarray(1 - rate, x.dtype), jnp.zeros_like(x))


class PostNormBlock(nn.Module):
    """A block of the original transformer: norm(x + attention(x)), norm(x + mlp(x)).

    Attributes:
      heads: attention heads.
      mlp_ratio: hidden width of the MLP relative to D.
      epsilon: of the norms.
      dropout: rate after attention and MLP; attention itself drops nothing.
      dtype: of the computation, see `compute_dtype`.
    """

    heads: int = 12
    mlp_ratio: float = 4.0
    epsilon: float = 1e-12
    dropout: float = 0.1
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
        y = MLP(hidden, dtype, init_kernel="normal", name="mlp")(x)
        x = layer_norm(dtype, "norm2", self.epsilon)(x + dropout(y, self.dropout, second))
        return constrain_batch(x)


class BERT(nn.Module):
    """Encoder of token ids, with learned absolute positions and a head tied to the word table.

    Attributes:
      width: D, divisible by `heads`.
      depth: number of blocks.
      heads: attention heads.
      mlp_ratio: hidden width of the MLP relative to D.
      positions: rows of the position table: the longest text.
      vocabulary: rows of the word table; None: as many as the tokenizer has tokens (a system sets
        it). More, e.g. a multiple of 128, are never chosen as targets.
      epsilon: of the norms.
      dropout: rate of the embeddings and behind every branch.
      scan: loop over the blocks instead of unrolling them.
      remat: what the backward pass recomputes, see `REMAT_POLICIES`.
      dtype: of the computation, see `compute_dtype`.
    """

    width: int = 768
    depth: int = 12
    heads: int = 12
    mlp_ratio: float = 4.0
    positions: int = 512
    vocabulary: int | None = None
    epsilon: float = 1e-12
    dropout: float = 0.1
    scan: bool = False
    remat: str = "none"
    dtype: str = "auto"

    def setup(self) -> None:
        """Makes the tables, the stack and the head."""
        if self.remat not in REMAT_POLICIES:
            raise UserError(
                f"remat must be one of {', '.join(REMAT_POLICIES)}, not '{self.remat}'."
            )
        dtype, normal = compute_dtype(self.dtype), truncated_normal(0.02)
        self.word = self.param("word", normal, (self.vocabulary, self.width))
        self.position = self.param("position", normal, (self.positions, self.width))
        # Sentence A and B; only the first is used here, the second comes with published weights.
        self.segment = self.param("segment", normal, (2, self.width))
        self.norm = layer_norm(dtype, None, self.epsilon)
        self.blocks = self.param("blocks", self._init_blocks)
        self.transform = nn.Dense(self.width, kernel_init=normal, dtype=dtype)
        self.transform_norm = layer_norm(dtype, None, self.epsilon)
        self.output_bias = self.param("output_bias", nn.initializers.zeros, (self.vocabulary,))

    def __call__(
        self, ids: jax.Array, real: jax.Array, rng: jax.Array | None = None
    ) -> dict[str, Any]:
        """Encodes texts.

        Args:
          ids: int [B, L], class token first.
          real: bool [B, L], False where padding is, which nobody attends to.
          rng: key of dropout; None: nothing is dropped.

        Returns:
          `embedded` [B, L, D]; `blocks[i]` [B, L, D]; `tokens` [B, L, D], the output of the last;
          `cls` [B, D], its first; `mean` float32 [B, D], over the real tokens without the first.
        """
        first, second = (None, None) if rng is None else jax.random.split(rng)
        x = embedded = self.embed(self.words(ids), first)
        block, policy = self._block(), REMAT_POLICIES[self.remat]
        mask = real[:, None, None, :]

        def apply(x: jax.Array, params: Any, index: Any) -> jax.Array:
            key = None if second is None else jax.random.fold_in(second, index)
            y: Any = block.apply({"params": params}, x, None, mask, key)
            return y

        run = apply if self.remat == "none" else jax.checkpoint(apply, policy=policy)

        def step(x: jax.Array, part: Any) -> tuple[jax.Array, jax.Array]:
            x = run(x, *part)
            return x, x

        unroll = 1 if self.scan else self.depth
        x, blocks = jax.lax.scan(step, x, (self.blocks, jnp.arange(self.depth)), unroll=unroll)
        weights = real[:, 1:, None].astype(jnp.float32)
        total = (x[:, 1:].astype(jnp.float32) * weights).sum(axis=1)
        return {
            "embedded": embedded,
            "blocks": blocks,
            "tokens": x,
            "cls": x[:, 0],
            "mean": total / jnp.maximum(weights.sum(axis=1), 1.0),
        }

    def words(self, ids: jax.Array) -> jax.Array:
        """Rows of the word table: int [...] -> [..., D]."""
        return self.word[ids]

    def places(self, length: int) -> jax.Array:
        """Rows of the position table, [L, D]."""
        if length > self.positions:
            raise UserError(
                f"A text of {length} tokens is longer than the {self.positions} positions of the "
                "encoder: raise system.encoder.positions or lower the length of the input."
            )
        return self.position[:length]

    def embed(self, words: jax.Array, rng: jax.Array | None = None) -> jax.Array:
        """norm(word + position + segment): [B, L, D] -> [B, L, D]."""
        x = words + self.places(words.shape[1])[None, :, :] + self.segment[0][None, None, :]
        return dropout(self.norm(x), self.dropout, rng)

    def logits(self, tokens: jax.Array) -> jax.Array:
        """The language-modelling head: [..., D] -> float32 [..., V]."""
        x = self.transform_norm(gelu(self.transform(tokens)))
        word = self.word.astype(x.dtype)
        logits = jnp.einsum("...d,vd->...v", x, word, preferred_element_type=jnp.float32)
        return logits + self.output_bias.reshape((1,) * (logits.ndim - 1) + (-1,))

    def initialise(self, ids: jax.Array, real: jax.Array) -> jax.Array:
        """Calls every part, for `init`."""
        return self.logits(self(ids, real)["tokens"])

    def _block(self) -> PostNormBlock:
        return PostNormBlock(
            self.heads, self.mlp_ratio, self.epsilon, self.dropout, self.dtype, parent=None
        )

    def _init_blocks(self, rng: jax.Array) -> Any:
        """Parameters of all blocks, stacked: [depth, ...] in every leaf."""
        x, block = jnp.zeros((1, 1, self.width)), self._block()
        return jax.vmap(lambda key: block.init(key, x)["params"])(jax.random.split(rng, self.depth))

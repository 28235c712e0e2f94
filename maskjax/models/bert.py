"""BERT: the post-norm encoder of text with its language-modelling head (Devlin et al., 2019)."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from maskjax.errors import UserError
from maskjax.models.layers import Dense, gelu, layer_norm, truncated_normal
from maskjax.models.post_norm import PostNormBlock
from maskjax.models.precision import compute_dtype
from maskjax.models.stack import apply_block, check_remat, dropout, run_stack, stacked_params


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
        check_remat(self.remat)
        dtype, normal = compute_dtype(self.dtype), truncated_normal(0.02)
        self.word = self.param("word", normal, (self.vocabulary, self.width))
        self.position = self.param("position", normal, (self.positions, self.width))
        # Sentence A and B; only the first is used here, the second comes with published weights.
        self.segment = self.param("segment", normal, (2, self.width))
        self.norm = layer_norm(dtype, None, self.epsilon)
        example = jnp.zeros((1, 1, self.width))
        self.blocks = stacked_params(self, self._block(), self.depth, example)
        self.transform = Dense(self.width, kernel_init=normal, dtype=dtype)
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
        mask = real[:, None, None, :]

        def step(x: jax.Array, params: Any, index: jax.Array) -> jax.Array:
            key = None if second is None else jax.random.fold_in(second, index)
            return apply_block(self._block(), params, x, mask=mask, rng=key)

        x, blocks = run_stack([step], self.blocks, x, scan=self.scan, remat=self.remat)
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
            self.heads,
            self.mlp_ratio,
            self.epsilon,
            self.dropout,
            dtype=self.dtype,
            parent=None,
        )

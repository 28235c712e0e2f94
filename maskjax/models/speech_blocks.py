"""Post-norm transformer blocks, and stacks of any block with parameters along one axis."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from maskjax.errors import UserError
from maskjax.models.attention import Attention
from maskjax.models.layers import MLP, layer_norm
from maskjax.models.stack import dropout
from maskjax.models.transformer import REMAT_POLICIES
from maskjax.parallel.sharding import constrain_batch


class PostNormBlock(nn.Module):
    """Block of the original transformer: norm(x + attention(x)), norm(x + mlp(x)).

    Vaswani et al. (2017); used by BERT, wav2vec 2.0 Base and HuBERT Base.

    Attributes: as in `models.Block`, and
      dropout: of what both branches return.
    """

    heads: int
    mlp_ratio: float = 4.0
    dtype: jnp.dtype = jnp.float32
    epsilon: float = 1e-5
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array, rng: jax.Array | None = None) -> jax.Array:
        """[B, N, D] -> [B, N, D]; `rng` is the key of dropout, None: there is none."""
        x = constrain_batch(x)
        rng1, rng2 = (None, None) if rng is None else jax.random.split(rng)
        y = Attention(self.heads, self.dtype, init_kernel="normal", name="attention")(x)
        x = layer_norm(self.dtype, "norm1", self.epsilon)(x + dropout(y, self.dropout, rng1))
        hidden = round(x.shape[-1] * self.mlp_ratio)
        y = MLP(hidden, self.dtype, init_kernel="normal", name="mlp")(x)
        x = x + dropout(y, self.dropout, rng2)
        return constrain_batch(layer_norm(self.dtype, "norm2", self.epsilon)(x))


class Stack(nn.Module):
    """Blocks in a row, with all parameters in one tree with a leading axis, as `Transformer` has.

    `blocks` are called in turn, again and again (e.g. without and with a shift of windows); they
    have equal parameters.

    Attributes:
      blocks: unbound modules that map [B, N, D], and a key if there is one, to [B, N, D].
      depth: number of blocks in all, a multiple of `len(blocks)`.
      scan: loop over the turns instead of unrolling.
      remat: a name of `REMAT_POLICIES`.
      layer_drop: probability of leaving out a block, for the whole batch (Fan et al., 2020).
    """

    blocks: tuple[nn.Module, ...]
    depth: int
    scan: bool = False
    remat: str = "none"
    layer_drop: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array, rng: jax.Array | None = None) -> tuple[jax.Array, Any]:
        """[B, N, D] -> ([B, N, D], outputs of every block, indexed by block).

        Args:
          x: the tokens.
          rng: key of dropout and of leaving out blocks; None: deterministic.
        """
        turn = len(self.blocks)
        if self.depth % turn:
            raise UserError(f"A depth of {self.depth} is not divisible by {turn} kinds of blocks.")
        if self.remat not in REMAT_POLICIES:
            raise UserError(
                f"remat must be one of {', '.join(REMAT_POLICIES)}, not '{self.remat}'."
            )
        blocks = [block.clone(parent=None) for block in self.blocks]
        example = jax.ShapeDtypeStruct((1, *x.shape[1:]), x.dtype)

        def init(rng: jax.Array) -> Any:
            zeros = jnp.zeros(example.shape, example.dtype)
            return jax.vmap(lambda key: blocks[0].init(key, zeros)["params"])(
                jax.random.split(rng, self.depth)
            )

        params = self.param("blocks", init)
        applies = [self._applied(block, rng) for block in blocks]
        if self.scan:
            each = (params, jnp.arange(self.depth))
            turns = jax.tree.map(lambda p: p.reshape(-1, turn, *p.shape[1:]), each)

            def body(x: jax.Array, one_turn: Any) -> tuple[jax.Array, jax.Array]:
                outputs = []
                for i, apply in enumerate(applies):
                    x = apply(x, *jax.tree.map(lambda p, i=i: p[i], one_turn))
                    outputs.append(x)
                return x, jnp.stack(outputs)

            x, outputs = jax.lax.scan(body, x, turns)
            return x, outputs.reshape(self.depth, *outputs.shape[2:])
        leaves, tree = jax.tree.flatten(params)
        parts = [jax.lax.split(leaf, [1] * self.depth) for leaf in leaves]
        outputs = []
        for i in range(self.depth):
            block_params = tree.unflatten([part[i].squeeze(0) for part in parts])
            x = applies[i % turn](x, block_params, jnp.asarray(i))
            outputs.append(x)
        return x, outputs

    def _applied(
        self, block: nn.Module, rng: jax.Array | None
    ) -> Callable[[jax.Array, Any, jax.Array], jax.Array]:
        def apply(x: jax.Array, params: Any, index: jax.Array) -> jax.Array:
            if rng is None:
                out: Any = block.apply({"params": params}, x)
                return out
            drop_rng, block_rng = jax.random.split(jax.random.fold_in(rng, index))
            y: Any = block.apply({"params": params}, x, block_rng)
            return jnp.where(jax.random.bernoulli(drop_rng, self.layer_drop), x, y)

        if self.remat == "none":
            return apply
        return jax.checkpoint(apply, policy=REMAT_POLICIES[self.remat])

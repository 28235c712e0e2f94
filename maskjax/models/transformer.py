"""Pre-norm transformer blocks and stacks of them."""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from maskjax.errors import UserError
from maskjax.models.attention import Attention
from maskjax.models.layers import MLP, LayerScale, layer_norm
from maskjax.models.relative_bias import RelativeBias
from maskjax.models.stack import apply_block, check_remat, run_stack, stacked_params
from maskjax.parallel.sharding import constrain_batch


def stochastic_depth(x: jax.Array, rate: jax.Array | float, rng: jax.Array | None) -> jax.Array:
    """Zeroes a branch for some of the examples (stochastic depth, Huang et al., 2016).

    Args:
      x: [B, ...], the output of a residual branch.
      rate: probability of zeroing it; what survives is divided by 1 - rate.
      rng: a key; None: nothing is dropped.
    """
    if rng is None:
        return x
    survives = jax.random.bernoulli(rng, 1.0 - rate, (x.shape[0], *(1,) * (x.ndim - 1)))
    return jnp.where(survives, x / jnp.asarray(1.0 - rate, x.dtype), jnp.zeros_like(x))


class Block(nn.Module):
    """Pre-norm ViT block (Dosovitskiy et al., 2021): x + attention(norm x), x + mlp(norm x).

    Attributes:
      heads: attention heads.
      mlp_ratio: hidden width of the MLP relative to D.
      dtype: of the computation.
      bias: which projections of attention have a bias: "qkv", "qv" or "none".
      cosine: cosine attention.
      layer_scale: initial value of the learned factors [D] of both branches (Touvron et al., 2021,
        CaiT), parameters `scale1/scale` and `scale2/scale`; None: no such factors.
      activation: of the MLP, "gelu" (exact) or "gelu_tanh".
      epsilon: of the norms.
      init_kernel: a name of `layers.KERNEL_INITS`.
      bias_entries: number of entries of the block's own table of relative bias; 0: it has none.
      attention_batch: `at_once` of `Attention`.
    """

    heads: int
    mlp_ratio: float = 4.0
    dtype: jnp.dtype = jnp.float32
    bias: str = "qkv"
    cosine: bool = False
    layer_scale: float | None = None
    activation: str = "gelu"
    epsilon: float = 1e-6
    init_kernel: str = "xavier"
    bias_entries: int = 0
    attention_batch: int | None = None

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        mask: jax.Array | None = None,
        bias: jax.Array | None = None,
        rng: jax.Array | None = None,
        drop_path: jax.Array | float = 0.0,
        offsets: jax.Array | None = None,
        last: int | None = None,
    ) -> jax.Array:
        """[B, N, D] -> [B, N, D], or [B, `last`, D].

        Args:
          x: the tokens.
          mask: bool, broadcastable to [B, heads, N, N]; True = may be attended.
          bias: float, broadcastable to [B, heads, N, N], added to the logits.
          rng: key of stochastic depth; None: every branch is taken.
          drop_path: probability of leaving out a branch, per example and branch.
          offsets: int [1 or B, N, N], the entries of the own table; needed if there is one.
          last: how many tokens, at the end of the sequence, are wanted; they read all. None: all.
            Not with `mask`, `bias` or `offsets` that have a row for every token.
        """
        x = constrain_batch(x)
        rng1, rng2 = (None, None) if rng is None else jax.random.split(rng)
        if offsets is not None:
            own = RelativeBias(self.heads, self.bias_entries, name="relative_bias")(offsets)
            bias = own if bias is None else bias + own
        y = layer_norm(self.dtype, "norm1", self.epsilon)(x)
        context = y
        x, y = _last(x, last), _last(y, last)
        y = Attention(
            self.heads,
            self.dtype,
            self.bias,
            self.cosine,
            self.init_kernel,
            self.attention_batch,
            name="attention",
        )(y, context, mask=mask, bias=bias)
        x = x + stochastic_depth(_scaled("scale1", y, self.layer_scale), drop_path, rng1)
        y = layer_norm(self.dtype, "norm2", self.epsilon)(x)
        hidden = round(x.shape[-1] * self.mlp_ratio)
        y = MLP(hidden, self.dtype, self.activation, self.init_kernel, name="mlp")(y)
        x = x + stochastic_depth(_scaled("scale2", y, self.layer_scale), drop_path, rng2)
        return constrain_batch(x)


class CrossBlock(nn.Module):
    """Pre-norm cross-attention to a context and an MLP; the context has a norm of its own.

    Attributes: as in `Block`, and
      residual: whether the queries are added to what attention returns. MultiMAE's decoders leave
        them out, so that the output is a mixture of the context alone.
    """

    heads: int
    mlp_ratio: float = 4.0
    dtype: jnp.dtype = jnp.float32
    bias: str = "qkv"
    cosine: bool = False
    layer_scale: float | None = None
    activation: str = "gelu"
    epsilon: float = 1e-6
    init_kernel: str = "xavier"
    residual: bool = True

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        context: jax.Array,
        mask: jax.Array | None = None,
        bias: jax.Array | None = None,
        rng: jax.Array | None = None,
        drop_path: jax.Array | float = 0.0,
    ) -> jax.Array:
        """Queries [B, N, D] and context [B, M, E] -> [B, N, D]; else as `Block`."""
        x = constrain_batch(x)
        rng1, rng2 = (None, None) if rng is None else jax.random.split(rng)
        queries = layer_norm(self.dtype, "norm1", self.epsilon)(x)
        context = layer_norm(self.dtype, "norm_context", self.epsilon)(context)
        y = Attention(
            self.heads, self.dtype, self.bias, self.cosine, self.init_kernel, name="attention"
        )(queries, context, mask=mask, bias=bias)
        y = _scaled("scale1", y, self.layer_scale)
        # Without the residual there is no path left to take, so nothing is dropped.
        x = x + stochastic_depth(y, drop_path, rng1) if self.residual else y
        y = layer_norm(self.dtype, "norm2", self.epsilon)(x)
        hidden = round(x.shape[-1] * self.mlp_ratio)
        y = MLP(hidden, self.dtype, self.activation, self.init_kernel, name="mlp")(y)
        x = x + stochastic_depth(_scaled("scale2", y, self.layer_scale), drop_path, rng2)
        return constrain_batch(x)


class Transformer(nn.Module):
    """A stack of equal blocks.

    The parameters of all blocks lie in one tree with a leading axis of `depth`, whatever the
    execution: `scan=True` compiles one block and loops over it, `scan=False` unrolls. So a
    checkpoint does not know which was used, and neither does an optimiser.

    Attributes:
      depth: number of blocks.
      heads: attention heads.
      mlp_ratio: hidden width of the MLP relative to D.
      scan: loop instead of unrolling; compiles faster, for deep stacks on accelerators.
      remat: a name of `REMAT_POLICIES`.
      dtype: of the computation.
      bias, cosine, layer_scale, activation, epsilon: of every `Block`.
      drop_path: rate of stochastic depth of the LAST block; it grows linearly from 0 at the first.
      init_kernel: as in `Block`; with "beit" the output kernels (attention/out and mlp/down) of
        block i = 0.. are divided by sqrt(2 (i + 1)) as well (Bao et al., 2022).
      bias_entries, attention_batch: of every `Block`.
    """

    depth: int
    heads: int
    mlp_ratio: float = 4.0
    scan: bool = False
    remat: str = "none"
    dtype: jnp.dtype = jnp.float32
    bias: str = "qkv"
    cosine: bool = False
    layer_scale: float | None = None
    activation: str = "gelu"
    epsilon: float = 1e-6
    drop_path: float = 0.0
    init_kernel: str = "xavier"
    bias_entries: int = 0
    attention_batch: int | None = None

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        mask: jax.Array | None = None,
        bias: jax.Array | None = None,
        rng: jax.Array | None = None,
        positions: jax.Array | None = None,
        offsets: jax.Array | None = None,
        last: int | None = None,
    ) -> tuple[jax.Array, Any]:
        """[B, N, D] -> ([B, N or `last`, D], outputs [B, N, D] of every block, indexed by block).

        Args:
          x: the tokens.
          mask: bool, broadcastable to [B, heads, N, N], for every block; True = may be attended.
          bias: float, broadcastable to [B, heads, N, N], added to the logits of every block.
          rng: key of stochastic depth; None: deterministic.
          positions: [B, N, D], added to the tokens before every block (as Point-MAE does).
          offsets: int [1 or B, N, N], the entries of each block's own table of relative bias.
          last: how many tokens, at the end of the sequence, are wanted of the last block; None:
            all. Who reads no others does not pay for them, unless blocks are looped over.
        """
        self._check()
        block = Block(
            self.heads,
            self.mlp_ratio,
            self.dtype,
            bias=self.bias,
            cosine=self.cosine,
            layer_scale=self.layer_scale,
            activation=self.activation,
            epsilon=self.epsilon,
            init_kernel=self.init_kernel,
            bias_entries=self.bias_entries,
            attention_batch=self.attention_batch,
            parent=None,
        )
        params = stacked_params(
            self,
            block,
            self.depth,
            jnp.zeros((1, *x.shape[1:]), x.dtype),
            *(() if offsets is None else (None, None, None, 0.0, offsets[:1])),
            change=_divide_outputs if self.init_kernel == "beit" else lambda params: params,
        )
        drop_rng = rng if self.drop_path > 0 else None

        def step(
            x: jax.Array, block_params: Any, index: jax.Array, last: int | None = None
        ) -> jax.Array:
            if positions is not None:
                x = x + positions
            drop: tuple = ()
            if drop_rng is not None:
                rate = self.drop_path * index / max(self.depth - 1, 1)
                drop = jax.random.fold_in(drop_rng, index), rate
            return apply_block(
                block, block_params, x, mask, bias, *drop, offsets=offsets, last=last
            )

        end = partial(step, last=last) if last else None
        x, blocks = run_stack([step], params, x, scan=self.scan, remat=self.remat, end=end)
        return _last(x, last), blocks

    def _check(self) -> None:
        check_remat(self.remat)
        if not 0 <= self.drop_path < 1:
            raise UserError(f"drop_path must be in [0, 1), not {self.drop_path}.")


def _last(x: jax.Array, count: int | None) -> jax.Array:
    """Returns the last `count` tokens, of which there may be none: [B, N, D] -> [B, count, D]."""
    return x if count is None else x[:, x.shape[1] - count :]


def _scaled(name: str, y: jax.Array, initial: float | None) -> jax.Array:
    """Multiplies a branch by learned factors, a submodule of the block that calls this."""
    return y if initial is None else LayerScale(initial, name=name)(y)


def _divide_outputs(params: Any) -> Any:
    """Divides the output kernels of block i by sqrt(2 (i + 1)); leaves are stacked."""

    def divide(path: tuple, leaf: jax.Array) -> jax.Array:
        module, kind = (key.key for key in path[-2:])
        if kind != "kernel" or module not in ("out", "down"):
            return leaf
        return leaf / jnp.sqrt(2.0 * (1 + jnp.arange(leaf.shape[0])))[:, None, None]

    return jax.tree_util.tree_map_with_path(divide, params)

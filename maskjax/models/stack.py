"""Stacks of equal blocks: one tree of parameters for all of them, looped over or unrolled."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from maskjax.errors import UserError
from maskjax.models.attention import KEPT
from maskjax.models.layers import HIDDEN

_read_by_attention = jax.checkpoint_policies.save_only_these_names(KEPT)

# What the backward pass may keep of a block; the rest is computed again. None: keep everything.
# What attention read is always kept: it is no larger than the block's input, and without it the
# values would be weighed a second time for the gradient of the projection that follows.
REMAT_POLICIES: dict[str, Callable | None] = {
    "none": None,
    "full": _read_by_attention,
    # The hidden layer of MLPs, before its activation: the largest product to compute again.
    "hidden": jax.checkpoint_policies.save_only_these_names(KEPT, HIDDEN),
    "dots": jax.checkpoint_policies.dots_saveable,
    "dots_with_no_batch_dims": jax.checkpoint_policies.save_from_both_policies(
        jax.checkpoint_policies.dots_with_no_batch_dims_saveable, _read_by_attention
    ),
}

# (x, parameters of one block, its number) -> x.
Step = Callable[[jax.Array, Any, jax.Array], jax.Array]


def check_remat(remat: str) -> None:
    """Raises a UserError if `remat` is not a name of `REMAT_POLICIES`."""
    if remat not in REMAT_POLICIES:
        raise UserError(f"remat must be one of {', '.join(REMAT_POLICIES)}, not '{remat}'.")


def stacked_params(
    parent: nn.Module,
    block: nn.Module,
    depth: int,
    *example: Any,
    change: Callable[[Any], Any] = lambda params: params,
) -> Any:
    """Returns the parameters `blocks` of a module: those of `depth` blocks, [depth, ...].

    To be called inside the parent's compact method or `setup`.

    Args:
      parent: owner of the parameters.
      block: template, made with `parent=None`.
      depth: number of blocks.
      *example: arguments of the block.
      change: is applied to fresh parameters.
    """
    # `param` would trace the initialisation at every call, to compare shapes: half of the time that
    # a stack takes to trace. Blocks compare them themselves.
    if parent.has_variable("params", "blocks"):
        return parent.get_variable("params", "blocks")

    return parent.param("blocks", lambda rng: change(_init_blocks(block, depth, rng, *example)))


@partial(jax.jit, static_argnums=(0, 1))
def _init_blocks(block: nn.Module, depth: int, rng: jax.Array, *example: Any) -> Any:
    keys = jax.random.split(rng, depth)
    return jax.vmap(lambda key: block.init(key, *example)["params"])(keys)


@partial(jax.jit, static_argnums=0, static_argnames="last")
def apply_block(block: nn.Module, params: Any, *arguments: Any, **named: Any) -> Any:
    """Applies a block. All blocks of equal settings and shapes are traced and differentiated once.

    XLA puts the body back in its place, so the program is the same.
    """
    return block.apply({"params": params}, *arguments, **named)


def run_stack(
    steps: Sequence[Step],
    params: Any,
    x: jax.Array,
    *,
    scan: bool = False,
    remat: str = "none",
    end: Step | None = None,
) -> tuple[jax.Array, Any]:
    """Runs blocks in a row.

    Args:
      steps: what a block does; if there are several, they are called in turn, again and again.
      params: [depth, ...] in every leaf, depth being a multiple of the number of steps.
      x: the input of the first block.
      scan: loop instead of unrolling; compiles faster, for deep stacks on accelerators.
      remat: a name of `REMAT_POLICIES`.
      end: what the last block does for the first result, if that is less than it could do; what
        nobody reads of its whole output is not computed then. In a loop, whose turns are all alike,
        it is, and `end` is not called.

    Returns:
      The output of the last block or of `end`, and those of all blocks, indexed by block.
    """
    check_remat(remat)
    if remat != "none":
        # In a loop nothing of the forward pass is in reach of the backward pass, so XLA cannot undo
        # the recomputation, and needs no barriers against it, which would cost copies.
        kept = partial(jax.checkpoint, policy=REMAT_POLICIES[remat], prevent_cse=not scan)
        steps, end = [kept(step) for step in steps], end and kept(end)
    depth, turn = len(jax.tree.leaves(params)[0]), len(steps)
    if depth % turn:
        raise UserError(f"A depth of {depth} is not divisible by {turn} kinds of blocks.")
    if scan:
        return _looped(steps, params, x)
    # The gradient of a split is one concatenation.
    leaves, tree = jax.tree.flatten(params)
    parts = zip(*(jax.lax.split(leaf, [1] * depth) for leaf in leaves), strict=True)
    blocks = [tree.unflatten([part.squeeze(0) for part in block]) for block in parts]
    outputs = []
    for i, block in enumerate(blocks):
        before, x = x, steps[i % turn](x, block, jnp.asarray(i))
        outputs.append(x)
    if end is not None:
        x = end(before, blocks[-1], jnp.asarray(depth - 1))
    return x, outputs


def _looped(steps: Sequence[Step], params: Any, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    depth, turn = len(jax.tree.leaves(params)[0]), len(steps)
    each = (params, jnp.arange(depth))
    if turn == 1:

        def body(x: jax.Array, one: Any) -> tuple[jax.Array, jax.Array]:
            x = steps[0](x, *one)
            return x, x

        return jax.lax.scan(body, x, each)

    def body_of_turn(x: jax.Array, one: Any) -> tuple[jax.Array, jax.Array]:
        outputs = []
        for i, step in enumerate(steps):
            x = step(x, *jax.tree.map(lambda leaf, i=i: leaf[i], one))
            outputs.append(x)
        return x, jnp.stack(outputs)

    turns = jax.tree.map(lambda leaf: leaf.reshape(-1, turn, *leaf.shape[1:]), each)
    x, outputs = jax.lax.scan(body_of_turn, x, turns)
    return x, outputs.reshape(depth, *outputs.shape[2:])


class Stack(nn.Module):
    """Blocks in a row that need nothing but tokens, and a key if something is drawn.

    `blocks` are called in turn, again and again (e.g. without and with a shift of windows); they
    have equal parameters.

    Attributes:
      blocks: unbound modules, called as block(x) or block(x, rng=key).
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
        check_remat(self.remat)
        blocks = [block.clone(parent=None) for block in self.blocks]
        example = jnp.zeros((1, *x.shape[1:]), x.dtype)
        params = stacked_params(self, blocks[0], self.depth, example)
        steps = [partial(self._step, block, rng) for block in blocks]
        return run_stack(steps, params, x, scan=self.scan, remat=self.remat)

    def _step(
        self, block: nn.Module, rng: jax.Array | None, x: jax.Array, params: Any, index: jax.Array
    ) -> jax.Array:
        if rng is None:
            return apply_block(block, params, x)
        drop_rng, block_rng = jax.random.split(jax.random.fold_in(rng, index))
        y = apply_block(block, params, x, rng=block_rng)
        return jnp.where(jax.random.bernoulli(drop_rng, self.layer_drop), x, y)


def dropout(x: jax.Array, rate: float, rng: jax.Array | None) -> jax.Array:
    """Zeroes values with probability `rate` and divides the others by 1 - rate; no key: neither."""
    if rng is None or rate == 0.0:
        return x
    kept = jax.random.bernoulli(rng, 1.0 - rate, x.shape)
    return jnp.where(kept, x / jnp.asarray(1.0 - rate, x.dtype), jnp.zeros_like(x))

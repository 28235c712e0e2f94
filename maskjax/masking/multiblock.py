"""A context and several target blocks (I-JEPA: Assran et al., 2023, section 3), static shapes."""

import dataclasses
import functools
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from maskjax.errors import UserError
from maskjax.tokens import TokenGrid

Shape = tuple[int, ...]  # (rows, columns)
Range = tuple[float, float]


@flax.struct.dataclass
class Kept:
    """The tokens that an encoder sees, where their number varies from example to example.

    Attributes:
      keep: int32 [B, K], as in `Mask`.
      weight: float32 [B, K]: 1, or 0 for an entry that only fills the list; an encoder lets nobody
        read such tokens, and what it makes of them is to be ignored.
    """

    keep: jax.Array
    weight: jax.Array


@flax.struct.dataclass
class BlockMasks:
    """Token numbers of a context and of T target blocks, each list in raster order.

    The lists have a fixed length. Entries of weight 0 only fill them: they name tokens that are not
    meant, and neither attention nor loss may count them.

    Attributes:
      context: int32 [B, K].
      targets: int32 [B, T, M].
      context_weight: float32 [B, K], 1 or 0; the ones come first.
      target_weight: float32 [B, T, M], likewise.
    """

    context: jax.Array
    targets: jax.Array
    context_weight: jax.Array
    target_weight: jax.Array

    @property
    def visible(self) -> Kept:
        """What the encoder of the context sees."""
        return Kept(self.context, self.context_weight)


def block_size(
    u: jax.Array | np.ndarray, shape: Shape, scale: Range, aspect: Range, largest: Shape
) -> tuple[Any, Any]:
    """Height and width of a block from one number, which sets both area and aspect ratio.

    Args:
      u: float, any shape, in [0, 1).
      shape: (rows, columns) of the token grid.
      scale: smallest and largest area, as a share of the grid.
      aspect: smallest and largest height / width.
      largest: longest sides; longer ones are cut.

    Returns:
      (height, width), int32 of the shape of `u`.
    """
    xp = np if isinstance(u, np.ndarray) else jnp
    # The small term keeps whole products from losing one to rounding.
    area = xp.floor(shape[0] * shape[1] * (scale[0] + u * (scale[1] - scale[0])) + 1e-4)
    ratio = aspect[0] + u * (aspect[1] - aspect[0])
    height = xp.minimum(xp.round(xp.sqrt(area * ratio)), largest[0])
    width = xp.minimum(xp.round(xp.sqrt(area / ratio)), largest[1])
    return height.astype(xp.int32), width.astype(xp.int32)


def rectangles(boxes: jax.Array, shape: Shape) -> jax.Array:
    """Returns the map of each box (top, left, height, width): int [..., 4] -> bool [..., N]."""
    top, left, height, width = (boxes[..., i, None] for i in range(4))
    rows, columns = (jnp.arange(n).reshape((1,) * (boxes.ndim - 1) + (n,)) for n in shape)
    vertical = (rows >= top) & (rows < top + height)
    horizontal = (columns >= left) & (columns < left + width)
    inside = vertical[..., :, None] & horizontal[..., None, :]
    return inside.reshape(*boxes.shape[:-1], shape[0] * shape[1])


def without_targets(context: jax.Array, targets: jax.Array, dropped: jax.Array) -> jax.Array:
    """Takes the target blocks out of the context block, but for the last `dropped` of them.

    Args:
      context: bool [B, N].
      targets: bool [B, T, N].
      dropped: int [B].
    """
    counts = jnp.arange(targets.shape[1])[None, :] < targets.shape[1] - dropped[:, None]
    return context & ~(targets & counts[:, :, None]).any(axis=1)


def list_tokens(
    inside: jax.Array, budget: int, noise: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
    """Lists the tokens of a map in raster order.

    Args:
      inside: bool [..., N].
      budget: length of the list, at most N.
      noise: float [..., N] in [0, 1): if the map has more tokens than the budget, those of lowest
        noise are listed; None: the first in raster order.

    Returns:
      (indices int32 [..., budget], weights float32 likewise).
    """
    if noise is not None:
        order = jnp.where(inside, noise, 2.0)
        inside = inside & (jnp.argsort(jnp.argsort(order, axis=-1), axis=-1) < budget)
    indices = jnp.argsort(~inside, axis=-1)[..., :budget].astype(jnp.int32)
    count = inside.sum(axis=-1)[..., None]
    place = jnp.arange(budget).reshape((1,) * (inside.ndim - 1) + (budget,))
    return indices, (place < count).astype(jnp.float32)


def truncate_to_shortest(weights: jax.Array) -> jax.Array:
    """Sets the weights to 0 beyond the length of the shortest list of the batch, as published.

    Args:
      weights: float32 [..., K], ones first: what `list_tokens` returns.
    """
    shortest = weights.sum(axis=-1).min()
    place = jnp.arange(weights.shape[-1]).reshape((1,) * (weights.ndim - 1) + (-1,))
    return weights * (place < shortest)


@dataclasses.dataclass(frozen=True)
class MultiBlock:
    """I-JEPA's masks: target blocks to predict, from a context block without them.

    One draw sets the size of the targets and one that of the context, for the whole batch; places
    are drawn for each example. A context of at most `min_keep` tokens is drawn again; after
    `tries` failures the last target is allowed to overlap it, and so on.

    The published code has two habits that the paper does not mention, and its defaults keep the
    first: (1) the highest row and column of a block are never drawn and blocks are cut to one less
    than the grid, so that the last row and the last column are seen by nobody; `inclusive=True`
    corrects that. (2) All contexts are cut, in raster order, to the shortest of the batch of one
    device, so that they depend on its size (31 % of the tokens at 16 images, 27 % at 128). A
    `budget` does the same with a fixed length, whatever the devices; `to_shortest=True` is the
    published rule over the global batch.

    Attributes:
      targets: number of target blocks, T.
      target_scale: smallest and largest area of a target, as a share of the tokens.
      target_aspect: smallest and largest height / width of a target.
      context_scale: of the context block, before the targets are taken out.
      context_aspect: of the context block.
      min_keep: every block has more tokens than this.
      budget: longest context, K; what is beyond is dropped. None: as long as one can be.
      trim: which tokens a context gives up beyond the budget: the last in "raster" order, which is
        published, or "random" ones.
      to_shortest: cut all contexts to the shortest of the batch.
      inclusive: let blocks reach the last row and column.
      tries: attempts before a target may overlap the context.
    """

    targets: int = 4
    target_scale: tuple[float, float] = (0.15, 0.2)
    target_aspect: tuple[float, float] = (0.75, 1.5)
    context_scale: tuple[float, float] = (0.85, 1.0)
    context_aspect: tuple[float, float] = (1.0, 1.0)
    min_keep: int = 10
    budget: int | None = None
    trim: str = "raster"
    to_shortest: bool = False
    inclusive: bool = False
    tries: int = 20

    def check(self, grid: TokenGrid) -> None:
        """Refuses grids of other than two axes, and blocks that cannot have `min_keep` tokens."""
        if len(grid.shape) != 2:
            raise UserError(f"Target blocks need two axes of tokens, not {len(grid.shape)}.")
        if self.trim not in ("raster", "random"):
            raise UserError(f"system.mask.trim must be 'raster' or 'random', not '{self.trim}'.")
        for name in ("target_scale", "target_aspect", "context_scale", "context_aspect"):
            low, high = getattr(self, name)
            if not 0 < low <= high or (name.endswith("scale") and high > 1):
                raise UserError(
                    f"system.mask.{name}=({low}, {high}) is no range of positive sizes."
                )
        if self.targets < 1 or self.tries < 1:
            raise UserError("system.mask.targets and system.mask.tries must be at least 1.")
        if self.budget is not None and self.budget < 1:
            raise UserError(f"system.mask.budget must be positive, not {self.budget}.")
        for what, sizes in zip(("target", "context"), self._sizes(grid.shape), strict=True):
            smallest = int((sizes[0] * sizes[1]).min())
            if smallest <= self.min_keep:
                raise UserError(
                    f"The smallest {what} block has {smallest} of {grid.num_tokens} tokens, not "
                    f"more than system.mask.min_keep={self.min_keep}: reduce min_keep or enlarge "
                    f"{what}_scale."
                )

    def lengths(self, grid: TokenGrid) -> tuple[int, int]:
        """Returns (K, M), the static lengths of a context and of a target list."""
        target, context = self._sizes(grid.shape)
        rows, columns = self._largest(grid.shape)
        # Of a target at least this much lies inside the context and is taken out of it.
        height, width = (np.asarray(side)[None, :] for side in target)
        tall, wide = (np.asarray(side)[:, None] for side in context)
        overlap = np.maximum(height - (rows - tall), 0) * np.maximum(width - (columns - wide), 0)
        longest = int((tall * wide - overlap).max())
        return min(longest, self.budget or longest), int((target[0] * target[1]).max())

    def __call__(
        self,
        rng: jax.Array,
        batch_size: int,
        grid: TokenGrid,
        scores: jax.Array | None = None,
        progress: jax.Array | float = 0.0,
    ) -> BlockMasks:
        """Draws the blocks of a batch; `scores` and `progress` have no influence."""
        del scores, progress
        size_rng, target_rng, context_rng, trim_rng = jax.random.split(rng, 4)
        u = jax.random.uniform(size_rng, (2,))
        largest = self._largest(grid.shape)
        target_size = block_size(u[0], grid.shape, self.target_scale, self.target_aspect, largest)
        context_size = block_size(
            u[1], grid.shape, self.context_scale, self.context_aspect, largest
        )
        boxes = self._draw(target_rng, (batch_size, self.targets), target_size, grid.shape)
        targets = rectangles(boxes, grid.shape)
        context = self._draw_context(context_rng, targets, context_size, grid.shape)
        noise = jax.random.uniform(trim_rng, context.shape) if self.trim == "random" else None
        return self.assemble(context, targets, grid, noise)

    def assemble(
        self,
        context: jax.Array,
        targets: jax.Array,
        grid: TokenGrid,
        noise: jax.Array | None = None,
    ) -> BlockMasks:
        """Lists the tokens of maps: bool [B, N] and [B, T, N]; `noise` see `list_tokens`."""
        budget, target_length = self.lengths(grid)
        context, context_weight = list_tokens(context, budget, noise)
        if self.to_shortest:
            context_weight = truncate_to_shortest(context_weight)
        targets, target_weight = list_tokens(targets, target_length)
        return BlockMasks(context, targets, context_weight, target_weight)

    def _largest(self, shape: Shape) -> Shape:
        return shape if self.inclusive else (shape[0] - 1, shape[1] - 1)

    def _sizes(self, shape: Shape) -> tuple:
        return _all_sizes(
            shape,
            self._largest(shape),
            (tuple(self.target_scale), tuple(self.target_aspect)),
            (tuple(self.context_scale), tuple(self.context_aspect)),
        )

    def _draw(self, rng: jax.Array, leading: tuple, size: tuple, shape: Shape) -> jax.Array:
        """Draws places of blocks of one size, int32 [*leading, 4]."""
        extra = 1 if self.inclusive else 0
        corners = [
            jax.random.randint(key, leading, 0, jnp.maximum(n - side + extra, 1))
            for key, n, side in zip(jax.random.split(rng), shape, size, strict=True)
        ]
        sides = [jnp.full(leading, side) for side in size]
        return jnp.stack([*corners, *sides], axis=-1)

    def _draw_context(
        self, rng: jax.Array, targets: jax.Array, size: tuple, shape: Shape
    ) -> jax.Array:
        """Draws contexts until each has more than `min_keep` tokens: bool [B, N]."""
        batch_size, count = targets.shape[:2]

        def unfinished(state: tuple) -> jax.Array:
            attempt, done, _ = state
            # With every target dropped the block itself is left, which is large enough.
            return ~done.all() & (attempt <= self.tries * count)

        def attempt_all(state: tuple) -> tuple:
            attempt, done, chosen = state
            boxes = self._draw(jax.random.fold_in(rng, attempt), (batch_size,), size, shape)
            dropped = jnp.full((batch_size,), attempt // self.tries)
            drawn = without_targets(rectangles(boxes, shape), targets, dropped)
            chosen = jnp.where(done[:, None], chosen, drawn)
            return attempt + 1, chosen.sum(axis=1) > self.min_keep, chosen

        start = (jnp.int32(0), jnp.zeros(batch_size, bool), jnp.zeros_like(targets[:, 0]))
        return jax.lax.while_loop(unfinished, attempt_all, start)[2]


@functools.cache
def _all_sizes(shape: Shape, largest: Shape, target: tuple, context: tuple) -> tuple:
    """Returns (heights, widths) that targets can have, and those that contexts can have."""
    u = np.linspace(0.0, 1.0, 20001)
    return tuple(
        tuple(np.unique(np.stack(block_size(u, shape, *ranges, largest)), axis=1))
        for ranges in (target, context)
    )

"""Point clouds: farthest point sampling, nearest neighbours, grouping. Static shapes, jittable."""

import flax.struct
import jax
import jax.numpy as jnp

from maskjax.tokens.select import take_tokens


@flax.struct.dataclass
class PointGroups:
    """A cloud cut into overlapping groups around centres.

    Attributes:
      centres: float32 [B, G, 3], coordinates of the centres.
      neighbours: float32 [B, G, S, 3], points of each group minus its centre, nearest first; the
        first is the centre itself.
      centre_index: int32 [B, G], which point of the cloud each centre is.
      index: int32 [B, G, S], which point of the cloud each neighbour is.
    """

    centres: jax.Array
    neighbours: jax.Array
    centre_index: jax.Array
    index: jax.Array


def squared_distances(a: jax.Array, b: jax.Array) -> jax.Array:
    """Returns the squared distances of all pairs: [..., N, 3] and [..., M, 3] -> [..., N, M].

    From differences, not from |a|^2 - 2 ab + |b|^2: that form cancels and reorders neighbours.
    """
    return jnp.square(a[..., :, None, :] - b[..., None, :, :]).sum(axis=-1)


def farthest_points(points: jax.Array, count: int, skip_ball: float | None = None) -> jax.Array:
    """Chooses points one after the other, each the farthest from all those chosen (FPS).

    The first is point 0, so a cloud in random order gives a random start. Of equally far points the
    first is taken. Source: Qi et al., 2017 (PointNet++), section 3.2.

    Args:
      points: float [B, P, 3].
      count: G <= P, static.
      skip_ball: points with |x|^2 <= skip_ball are never chosen, but for point 0. The CUDA kernel
        that Point-MAE was trained with has 1e-3, which keeps padding with zeros from being chosen.

    Returns:
      int32 [B, G].
    """
    points = points.astype(jnp.float32)
    skipped = jnp.zeros(points.shape[:2], bool)
    if skip_ball is not None:
        skipped = jnp.square(points).sum(axis=-1) <= skip_ball

    def choose(carry: tuple, _: None) -> tuple[tuple, jax.Array]:
        distance, last = carry
        origin = take_tokens(points, last[:, None])
        distance = jnp.minimum(distance, jnp.square(points - origin).sum(axis=-1))
        following = jnp.argmax(jnp.where(skipped, -1.0, distance), axis=-1).astype(jnp.int32)
        return (distance, following), last

    start = (
        jnp.full(points.shape[:2], jnp.inf, jnp.float32),
        jnp.zeros(points.shape[:1], jnp.int32),
    )
    return jax.lax.scan(choose, start, None, length=count)[1].T


def nearest_points(points: jax.Array, centres: jax.Array, count: int) -> jax.Array:
    """Returns the nearest points of each centre by ascending distance (kNN); ties by index.

    Args:
      points: float [B, P, 3].
      centres: float [B, G, 3].
      count: S <= P, static.

    Returns:
      int32 [B, G, S].
    """
    return jax.lax.top_k(-squared_distances(centres, points), count)[1].astype(jnp.int32)


def group_points(
    points: jax.Array, groups: int, group_size: int, skip_ball: float | None = None
) -> PointGroups:
    """Cuts clouds into `groups` groups of `group_size` points (Point-MAE: Pang et al., 2022).

    Centres are chosen by `farthest_points`, neighbours come from the whole cloud, so that groups
    overlap; they are moved to their centre and not rescaled. Nothing is differentiated.

    Args:
      points: float [B, P, 3].
      groups: G <= P.
      group_size: S <= P.
      skip_ball: see `farthest_points`.
    """
    points = jax.lax.stop_gradient(points.astype(jnp.float32))
    centre_index = farthest_points(points, groups, skip_ball)
    centres = take_tokens(points, centre_index)
    index = nearest_points(points, centres, group_size)
    neighbours = take_tokens(points, index.reshape(index.shape[0], -1)).reshape(*index.shape, 3)
    return PointGroups(centres, neighbours - centres[:, :, None, :], centre_index, index)

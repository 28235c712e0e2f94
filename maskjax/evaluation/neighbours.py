"""The most similar rows of a large set, searched by all devices of a mesh in bounded memory."""

from collections.abc import Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

_AXIS = "rows"  # of the search's own mesh: all devices in one line
_SHARES = PartitionSpec(_AXIS)
_PASS = 64  # chunks of test rows that stay on the devices while the training rows pass

# (similarities [devices, S, b, k], numbers of training rows, likewise)
_Best = tuple[jax.Array, jax.Array]


def nearest(
    train: np.ndarray,
    test: np.ndarray,
    k: int,
    mesh: Mesh | None = None,
    train_chunk: int = 8192,
    test_chunk: int = 1024,
) -> tuple[np.ndarray, np.ndarray]:
    """Finds the k training rows with the highest cosine similarity to each test row.

    Every device searches an equal share of the training rows, which stay in host memory and pass
    through it once, `train_chunk` at a time; then the k best of every device are gathered and the
    k best of those taken. Of equal similarities the smallest row comes first, on any number of
    devices.

    With n and m rows of D values a device holds, in bytes and whatever n and m are, about
    4 D (2 train_chunk + 64 test_chunk) + 4 train_chunk test_chunk for the rows and similarities.
    More than 64 `test_chunk` test rows take several passes over the training rows.

    Args:
      train: float32 [n, D], not necessarily normalised; a zero vector is similar to nothing. With
        several processes, the same in all.
      test: float32 [m, D], likewise.
      k: at most n.
      mesh: whose devices share the work; None: one device. With several processes all of them call
        this together.
      train_chunk: training rows that a device compares at once.
      test_chunk: test rows compared at once.

    Returns:
      Similarities, float32 [m, k], the highest first, and numbers of training rows, int32 [m, k].
    """
    mesh = _line(mesh)
    n, m = len(train), len(test)
    share = -(-n // mesh.size)
    train_chunk, test_chunk = min(train_chunk, share), min(test_chunk, m)
    found = []
    for start in range(0, m, _PASS * test_chunk):
        queries = test[start : start + _PASS * test_chunk]
        padded = np.pad(queries, [(0, -len(queries) % test_chunk), (0, 0)])
        placed = _replicate(mesh, padded.reshape(-1, test_chunk, test.shape[1]))
        with jax.set_mesh(mesh):  # training sets its own, of another shape
            best = _search(mesh, _unit(placed), train, k, share, train_chunk)
        found.append([np.asarray(x).reshape(-1, k)[: len(queries)] for x in best])
    similarities, rows = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return similarities, rows


def _search(
    mesh: Mesh, queries: jax.Array, train: np.ndarray, k: int, share: int, chunk: int
) -> tuple[jax.Array, jax.Array]:
    """One pass over the training rows: the k best of queries [S, b, D], each [S, b, k]."""
    best = _nothing(mesh, (*queries.shape[:2], k))
    previous = None
    for values, first, count in _chunks(mesh, train, share, chunk):
        best, done = _merge(mesh, best, queries, values, first, count)
        # Otherwise chunks would be sent faster than they are compared, and pile up on the devices.
        if previous is not None:
            previous.block_until_ready()
        previous = done
    return _gather(mesh, best)


def _chunks(
    mesh: Mesh, train: np.ndarray, share: int, chunk: int
) -> Iterator[tuple[jax.Array, jax.Array, jax.Array]]:
    """Yields training rows for all devices at once, a piece of each device's share.

    Yields:
      Rows [devices, chunk, D], padded with zeros; number of the first of each [devices]; how many
      are real [devices]. A process makes only those of its own devices.
    """
    shares, n = NamedSharding(mesh, _SHARES), len(train)
    firsts = np.minimum(np.arange(mesh.size) * share, n)
    stops = np.minimum(firsts + share, n)

    def place(values: np.ndarray) -> jax.Array:
        return jax.make_array_from_callback(values.shape, shares, lambda index: values[index])

    for start in range(0, share, chunk):
        first = np.minimum(firsts + start, stops)
        count = np.minimum(first + chunk, stops) - first

        def piece(
            index: tuple[slice, ...] | None, first: np.ndarray = first, count: np.ndarray = count
        ) -> np.ndarray:
            assert index is not None  # only if there were no axes
            device = index[0].start or 0
            rows = train[first[device] : first[device] + count[device]]
            return np.pad(rows, [(0, chunk - len(rows)), (0, 0)])[None]

        shape = (mesh.size, chunk, train.shape[1])
        values = jax.make_array_from_callback(shape, shares, piece)
        yield values, place(first.astype(np.int32)), place(count.astype(np.int32))


@partial(jax.jit, static_argnums=0, donate_argnums=1)
def _merge(
    mesh: Mesh,
    best: _Best,
    queries: jax.Array,
    values: jax.Array,
    first: jax.Array,
    count: jax.Array,
) -> tuple[_Best, jax.Array]:
    """Merges one chunk of training rows on each device into its k best so far.

    Args:
      mesh: a line of devices.
      best: similarities and numbers [devices, S, b, k] so far.
      queries: unit vectors [S, b, D], the same on every device.
      values: [devices, c, D].
      first: [devices], numbers of the first rows.
      count: [devices], how many of the c rows are real.

    Returns:
      The k best now, and a number that is there when they are.
    """

    def on_device(
        best: _Best, queries: jax.Array, values: jax.Array, first: jax.Array, count: jax.Array
    ) -> tuple[_Best, jax.Array]:
        values, k = _unit(values[0]), best[0].shape[-1]
        real = jnp.arange(len(values)) < count[0]

        def merge(arguments: tuple) -> tuple[jax.Array, jax.Array]:
            similarities, rows, query = arguments
            new = jnp.matmul(query, values.T, precision="highest")
            new = jnp.where(real[None, :], new, -jnp.inf)
            # The chunk alone first: the merge then sorts 2k instead of copying the whole chunk.
            new, index = lax.top_k(new, min(k, len(values)))
            # Of equals `top_k` takes the first, and rows come in their order.
            similarities = jnp.concatenate([similarities, new], axis=-1)
            rows = jnp.concatenate([rows, first[0] + index], axis=-1)
            similarities, index = lax.top_k(similarities, k)
            return similarities, jnp.take_along_axis(rows, index, axis=-1)

        merged = lax.map(merge, (best[0][0], best[1][0], queries))
        return (merged[0][None], merged[1][None]), merged[1].reshape(-1)[:1]

    return jax.shard_map(
        on_device,
        mesh=mesh,
        in_specs=((_SHARES, _SHARES), PartitionSpec(), _SHARES, _SHARES, _SHARES),
        out_specs=((_SHARES, _SHARES), _SHARES),
        check_vma=False,
    )(best, queries, values, first, count)


@partial(jax.jit, static_argnums=0)
def _gather(mesh: Mesh, best: _Best) -> tuple[jax.Array, jax.Array]:
    """Returns the k best of the k best of all devices, [S, b, k], the same on every device."""

    def on_device(best: _Best) -> tuple[jax.Array, jax.Array]:
        k = best[0].shape[-1]

        def merge(chunk: _Best) -> tuple[jax.Array, jax.Array]:
            # Chunk by chunk, so that k x devices of a few test rows exist at once. Shares follow
            # each other as the devices do: of equals the first is the smallest row.
            similarities, rows = (lax.all_gather(x, _AXIS, axis=1, tiled=True) for x in chunk)
            similarities, index = lax.top_k(similarities, k)
            return similarities, jnp.take_along_axis(rows, index, axis=-1)

        return lax.map(merge, (best[0][0], best[1][0]))

    return jax.shard_map(
        on_device,
        mesh=mesh,
        in_specs=((_SHARES, _SHARES),),
        out_specs=(PartitionSpec(), PartitionSpec()),
        check_vma=False,  # it cannot see that what is gathered is the same everywhere
    )(best)


def _line(mesh: Mesh | None) -> Mesh:
    """Returns the devices of a mesh in one line; without a mesh, one device of this process."""
    devices = np.asarray(jax.local_devices()[:1]) if mesh is None else mesh.devices.reshape(-1)
    return Mesh(devices, (_AXIS,), axis_types=(jax.sharding.AxisType.Auto,))


def _nothing(mesh: Mesh, shape: tuple[int, ...]) -> _Best:
    shares = NamedSharding(mesh, _SHARES)

    @partial(jax.jit, out_shardings=(shares, shares))
    def nothing() -> _Best:
        whole = (mesh.size, *shape)
        return jnp.full(whole, -jnp.inf, jnp.float32), jnp.zeros(whole, jnp.int32)

    return nothing()


def _replicate(mesh: Mesh, values: np.ndarray) -> jax.Array:
    everywhere = NamedSharding(mesh, PartitionSpec())
    return jax.make_array_from_callback(values.shape, everywhere, lambda index: values[index])


@jax.jit
def _unit(values: jax.Array) -> jax.Array:
    """Scales the last axis to length 1; zero stays zero. Safe for the whole range of float32."""
    largest = jnp.max(jnp.abs(values), axis=-1, keepdims=True)
    values = values / jnp.where(largest > 0, largest, 1)
    norm = jnp.linalg.norm(values, axis=-1, keepdims=True)
    return values / jnp.where(norm > 0, norm, 1)

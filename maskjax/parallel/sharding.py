"""Where arrays lie on the mesh."""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from maskjax.parallel.mesh import BATCH_AXES, batch_shards
from maskjax.parallel.rules import check_used, read_rules, split
from maskjax.paths import named_leaves


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The first axis is split over the batch axes of the mesh, the others are whole."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds the whole array."""
    return NamedSharding(mesh, PartitionSpec())


def on_mesh(tree: Any) -> Any:
    """Returns shapes that lie on the mesh that is set, if any, as the arrays of a run do.

    JAX's cache of traces tells them from shapes that lie nowhere.

    Args:
      tree: of `ShapeDtypeStruct`s or arrays.
    """
    mesh = jax.sharding.get_mesh()
    if mesh.empty:
        return tree
    place = replicated(mesh)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), tree)


def constrain_batch(x: jax.Array) -> jax.Array:
    """Keeps the batch axis (the first) of an activation split over the mesh that is set, if any.

    Without this at every block, XLA may gather activations instead of weights under FSDP.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or x.shape[0] % batch_shards(mesh.shape):
        return x
    return jax.lax.with_sharding_constraint(x, PartitionSpec(BATCH_AXES))


def constrain_tensor(x: jax.Array, axis: int) -> jax.Array:
    """Keeps an axis of an activation split over `tensor` as well, where that divides it.

    Args:
      x: [B, ...], what comes out of a matrix that is split by columns.
      axis: the heads of attention, or the hidden layer of an MLP; not negative.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.shape["tensor"] == 1 or x.shape[0] % batch_shards(mesh.shape):
        return x
    axes: list[Any] = [BATCH_AXES, *(None,) * (x.ndim - 1)]
    if x.shape[axis] % mesh.shape["tensor"] == 0:
        axes[axis] = "tensor"
    return jax.lax.with_sharding_constraint(x, PartitionSpec(*axes))


def on_own_examples(f: Callable[..., jax.Array], x: jax.Array, *whole: jax.Array) -> jax.Array:
    """Returns f(x, *whole), which every device computes for its own examples, with no other's help.

    For operations that XLA does not split over the batch by itself, or splits wrongly.

    Args:
      f: [b, ...], ... -> [b, ...], of every example by itself.
      x: [B, ...], split over the mesh that is set, if any, along the first axis.
      *whole: parameters, which every device gets in full.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1 or x.shape[0] % batch_shards(mesh.shape):
        return f(x, *whole)
    own, all_of_it = PartitionSpec(BATCH_AXES), PartitionSpec()
    specs = (own, *(all_of_it,) * len(whole))
    return jax.shard_map(f, in_specs=specs, out_specs=own)(x, *whole)


def in_parts(f: Callable[..., jax.Array], at_once: int, *arrays: jax.Array) -> jax.Array:
    """Returns f(*arrays), of some of every device's examples after the other.

    The backward pass computes each part again. So what `f` makes in between exists for one part at
    a time, and may fit in the memory of the core.

    Args:
      f: [b, ...], ... -> [b, ...], of every example by itself; it may be called with any b.
      at_once: examples of a device at a time, positive; fewer where that does not divide them.
      *arrays: [B, ...], split over the mesh that is set, if any, along the first axis.
    """
    mesh, size = jax.sharding.get_abstract_mesh(), arrays[0].shape[0]
    if not isinstance(size, int):  # an exported program is for any number
        return f(*arrays)
    shards = 1 if mesh.empty or size % batch_shards(mesh.shape) else batch_shards(mesh.shape)
    own = size // shards
    parts = next(n for n in range(1, own + 1) if own % n == 0 and own // n <= at_once)
    if parts == 1:
        return f(*arrays)

    # Apart from the axis of the devices, so that each takes its parts of what it holds.
    def split(x: jax.Array) -> jax.Array:
        return x.reshape(shards, parts, -1, *x.shape[1:]).swapaxes(0, 1)

    @partial(jax.checkpoint, prevent_cse=False)  # in a loop nothing has to
    def of_part(part: tuple[jax.Array, ...]) -> jax.Array:
        y = f(*(x.reshape(-1, *x.shape[2:]) for x in part))
        return y.reshape(shards, -1, *y.shape[1:])

    def step(nothing: None, part: tuple[jax.Array, ...]) -> tuple[None, jax.Array]:
        return nothing, of_part(part)

    # A loop, since the compiler would mix parts that stand side by side. Its gradient runs the
    # other way, and XLA leaves out the zeros that results begin with where the index counts up.
    _, y = jax.lax.scan(step, None, tuple(split(x) for x in arrays), reverse=True)
    return y.swapaxes(0, 1).reshape(size, *y.shape[3:])


def state_shardings(mesh: Mesh, abstract: Any, fsdp_min_size: int, rules: Any = ()) -> Any:
    """Returns a sharding for every leaf of a training state, see `parallel.rules`.

    A leaf is split over `tensor` by the rule for its name. Then one of at least `fsdp_min_size`
    values is split over `fsdp` along the largest divisible dimension that is left; smaller ones
    are not. Moments and teachers have the names and shapes of their parameters, so they follow
    them.

    Args:
      mesh: the mesh.
      abstract: tree of `ShapeDtypeStruct`.
      fsdp_min_size: threshold in values.
      rules: of the configuration, before the general ones.

    Raises:
      UserError: a rule cannot be followed, or decides over nothing.
    """
    read = read_rules(rules)
    shapes = {name: leaf.shape for name, leaf in named_leaves(abstract).items()}
    check_used(read, shapes)
    specs = [split(name, shape, mesh.shape, fsdp_min_size, read) for name, shape in shapes.items()]
    shardings = [NamedSharding(mesh, spec) for spec in specs]
    return jax.tree.unflatten(jax.tree.structure(abstract), shardings)


def whole_leaves(tree: Any) -> dict[str, int]:
    """Returns {name: bytes} of the leaves that every device holds in full, biggest first.

    Args:
      tree: of arrays, or of `ShapeDtypeStruct`s that carry their shardings.
    """
    found = {
        name: math.prod(leaf.shape) * leaf.dtype.itemsize
        for name, leaf in named_leaves(tree).items()
        if leaf.sharding.is_fully_replicated
    }
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def batch_rows(mesh: Mesh, batch_size: int) -> np.ndarray:
    """Returns the rows of a global batch that this process's devices hold, int64, ascending.

    Which they are depends on the order of the devices in the mesh, which follows the wiring of the
    machines: a process may hold rows that are not next to each other, and where the batch is not
    split between two processes, both hold the same.

    Args:
      mesh: the mesh.
      batch_size: B, over all processes; divisible by the batch axes of the mesh.
    """
    slices = batch_sharding(mesh).addressable_devices_indices_map((batch_size,)).values()
    return np.unique(np.concatenate([np.arange(batch_size)[rows] for rows in slices]))


def place_batch(mesh: Mesh, batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
    """Moves this process's share of a batch to its devices; the result is the global batch.

    Args:
      mesh: the mesh.
      batch: arrays whose first axis are the `batch_rows` of this process.
    """
    sharding = batch_sharding(mesh)
    if sharding.is_fully_addressable:
        return {k: jax.make_array_from_process_local_data(sharding, v) for k, v in batch.items()}
    shards = batch_shards(mesh.shape)
    own = len({str(s) for s in sharding.addressable_devices_indices_map((shards,)).values()})

    def place(value: np.ndarray) -> jax.Array:
        size = len(value) * shards // own
        rows = batch_rows(mesh, size)

        def shard(index: tuple[slice, ...] | None) -> np.ndarray:
            assert index is not None  # only if there were no axes
            first, stop, _ = index[0].indices(size)
            start = np.searchsorted(rows, first)
            return value[start : start + stop - first]

        return jax.make_array_from_callback((size, *value.shape[1:]), sharding, shard)

    return {name: place(value) for name, value in batch.items()}


def lay_out(tree: Any, shardings: Any) -> Any:
    """Puts a tree that every process has in full on the devices.

    Args:
      tree: of NumPy arrays or arrays of this process's devices, the same in all processes. Leaves
        that are global arrays already stay as they are.
      shardings: one for each leaf.
    """

    def put(x: Any, sharding: NamedSharding) -> jax.Array:
        if sharding.is_fully_addressable:
            return jax.device_put(x, sharding)
        if isinstance(x, jax.Array) and not x.is_fully_addressable:
            return x
        whole = np.asarray(x)
        return jax.make_array_from_callback(whole.shape, sharding, lambda index: whole[index])

    return jax.tree.map(put, tree, shardings)


def replicate(mesh: Mesh, tree: Any) -> Any:
    """Puts a tree that every process has in full on all devices, whole on each; see `lay_out`."""
    return lay_out(tree, jax.tree.map(lambda _: replicated(mesh), tree))


def fetch(tree: Any) -> Any:
    """Returns a tree of NumPy arrays; every process gets the whole of every global array.

    With several processes all have to call it together.
    """

    def whole(x: Any) -> np.ndarray:
        if isinstance(x, jax.Array) and not x.is_fully_addressable and not x.is_fully_replicated:
            return np.asarray(multihost_utils.process_allgather(x, tiled=True))
        return np.asarray(x)

    return jax.tree.map(whole, tree)

"""Where arrays lie on the mesh."""

import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from maskjax.parallel.mesh import BATCH_AXES


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The first axis is split over the batch axes of the mesh, the others are whole."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds the whole array."""
    return NamedSharding(mesh, PartitionSpec())


def constrain_batch(x: jax.Array) -> jax.Array:
    """Keeps the batch axis (the first) of an activation split over the mesh that is set, if any.

    Without this at every block, XLA may gather activations instead of weights under FSDP.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or x.shape[0] % math.prod(mesh.shape[axis] for axis in BATCH_AXES):
        return x
    return jax.lax.with_sharding_constraint(x, PartitionSpec(BATCH_AXES))


def state_shardings(mesh: Mesh, abstract: Any, fsdp_min_size: int) -> Any:
    """Returns a sharding for every leaf of a training state.

    A leaf of at least `fsdp_min_size` values is split over the `fsdp` axis along its largest
    divisible dimension; smaller ones are replicated. Moments have the shapes of their parameters,
    so they follow them.

    Args:
      mesh: the mesh.
      abstract: tree of `ShapeDtypeStruct`.
      fsdp_min_size: threshold in values.
    """
    fsdp = mesh.shape["fsdp"]

    def of(leaf: jax.ShapeDtypeStruct) -> NamedSharding:
        divisible = [n if n % fsdp == 0 else 0 for n in leaf.shape]
        if fsdp == 1 or math.prod(leaf.shape) < fsdp_min_size or not any(divisible):
            return replicated(mesh)
        axis = divisible.index(max(divisible))
        return NamedSharding(mesh, PartitionSpec(*[None] * axis, "fsdp"))

    return jax.tree.map(of, abstract)


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
    shards = math.prod(mesh.shape[axis] for axis in BATCH_AXES)
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

"""Where arrays lie on the mesh."""

import math
from typing import Any

import jax
import numpy as np
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


def place_batch(mesh: Mesh, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
    """Moves this process's share of a batch to its devices; the result is the global batch."""
    sharding = batch_sharding(mesh)
    return {k: jax.make_array_from_process_local_data(sharding, v) for k, v in batch.items()}

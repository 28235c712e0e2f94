"""The mesh of devices, from the configuration."""

import math
import warnings
from collections.abc import Mapping

import jax
import numpy as np
from jax.sharding import AxisType, Mesh

from maskjax.errors import UserError

# Axes over which the batch is split. Every mesh has all axes; unused ones have size 1.
AXES = ("data", "fsdp", "tensor")
BATCH_AXES = ("data", "fsdp")


def make_mesh(sizes: Mapping[str, int], devices: list[jax.Device] | None = None) -> Mesh:
    """Returns a mesh with the axes `data`, `fsdp`, `tensor`.

    The axes are typed Auto: `jax.make_mesh` would make them Explicit, in which stock Linen layers
    fail.

    Args:
      sizes: devices along each axis; one of them may be -1, which takes what is left.
      devices: the devices to use; None: all.

    Raises:
      UserError: the sizes do not multiply to the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    shape = [int(sizes[axis]) for axis in AXES]
    given = ", ".join(f"{axis}={size}" for axis, size in zip(AXES, shape, strict=True))
    if shape.count(-1) > 1 or any(size < 1 and size != -1 for size in shape):
        raise UserError(
            f"A mesh of {given} is not possible: make the sizes of parallel.mesh positive, and at "
            "most one of them -1."
        )
    fixed = math.prod(size for size in shape if size != -1)
    if -1 in shape and len(devices) % fixed == 0:
        shape[shape.index(-1)] = len(devices) // fixed
    if math.prod(shape) != len(devices):
        raise UserError(
            f"A mesh of {given} does not fit {len(devices)} devices: change parallel.mesh so that "
            "the sizes multiply to the number of devices."
        )
    types = (AxisType.Auto,) * len(AXES)
    try:
        return jax.make_mesh(tuple(shape), AXES, types, devices=devices)
    except NotImplementedError:  # an axis is no product of whole axes of the TPUs' torus
        warnings.warn(
            f"A mesh of {given} does not follow the axes of the torus: neighbours in the mesh may "
            "be far apart, and collectives slower.",
            stacklevel=2,
        )
        return Mesh(np.asarray(devices).reshape(shape), AXES, axis_types=types)


def check_batch(
    mesh: Mesh,
    batch_size: int,
    accumulate: int = 1,
    keys: str = "train.batch_size, train.accumulate",
) -> None:
    """Refuses a batch that cannot be split evenly over micro-batches and devices.

    Args:
      mesh: of the devices.
      batch_size: over all devices.
      accumulate: micro-batches.
      keys: what the user can change besides the mesh, for the message.
    """
    shards = math.prod(mesh.shape[axis] for axis in BATCH_AXES)
    if accumulate < 1 or batch_size < 1 or batch_size % (shards * accumulate):
        raise UserError(
            f"A batch of {batch_size} is not divisible by {shards} devices x {accumulate} "
            f"micro-batches: change {keys} or parallel.mesh."
        )

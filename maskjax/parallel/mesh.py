"""The mesh of devices, from the configuration."""

import math
import warnings
from collections.abc import Mapping, Sequence

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh

from maskjax.errors import UserError

# Every mesh has all axes, the slowest network first; unused ones have size 1.
AXES = ("slice", "data", "fsdp", "tensor")
BATCH_AXES = ("slice", "data", "fsdp")  # those over which the batch is split
PARAMETER_AXES = ("fsdp", "tensor")  # those over which parameters are split


def make_mesh(sizes: Mapping[str, int], devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Returns a mesh with the axes `slice`, `data`, `fsdp`, `tensor`.

    A slice is a group of devices with a fast network of their own (ICI of TPUs), joined to the
    others by that of the data centre (DCN). The other axes lie within a slice, so that DCN sees
    the sum of the gradients alone.

    The axes are typed Auto: `jax.make_mesh` would make them Explicit, in which stock Linen layers
    fail.

    Args:
      sizes: devices along each axis; an axis that is not named has size 1. One of `data`, `fsdp`
        and `tensor` may be -1, which takes what is left. `slice` may be -1 besides: as many
        slices as the devices say they belong to.
      devices: the devices to use; None: all.

    Raises:
      UserError: the sizes do not multiply to the number of devices, or the slices are others.
    """
    devices = jax.devices() if devices is None else devices
    shape = [int(sizes.get(axis, 1)) for axis in AXES]
    given = describe_mesh(dict(zip(AXES, shape, strict=True)), "=")
    if shape[1:].count(-1) > 1 or any(size < 1 and size != -1 for size in shape):
        raise UserError(
            f"A mesh of {given} is not possible: make the sizes of parallel.mesh positive, and at "
            "most one of data, fsdp and tensor -1."
        )
    slices = _slices(devices)
    if shape[0] == -1:
        shape[0] = max(len(slices), 1)
    fixed = math.prod(size for size in shape if size != -1)
    if -1 in shape and len(devices) % fixed == 0:
        shape[shape.index(-1)] = len(devices) // fixed
    if math.prod(shape) != len(devices):
        raise UserError(
            f"A mesh of {given} does not fit {len(devices)} devices: change parallel.mesh so that "
            "the sizes multiply to the number of devices."
        )
    groups = _groups(shape[0], devices, slices)
    grid = np.stack([_arrange(shape[1:], group, given) for group in groups])
    return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def describe_mesh(shape: Mapping[str, int], sign: str = " ") -> str:
    """Returns "data 4, fsdp 2, tensor 1", with `slice` in front where it is not 1."""
    return ", ".join(
        f"{axis}{sign}{size}" for axis, size in shape.items() if axis != "slice" or size != 1
    )


def _slices(devices: Sequence[jax.Device]) -> dict[int, list[jax.Device]]:
    """Returns {number of the slice: its devices}; empty where devices know of none, as CPUs."""
    slices: dict[int, list[jax.Device]] = {}
    for device in devices:
        number = getattr(device, "slice_index", None)
        if number is None:
            return {}
        slices.setdefault(number, []).append(device)
    return dict(sorted(slices.items()))


def _groups(
    count: int, devices: Sequence[jax.Device], slices: Mapping[int, Sequence[jax.Device]]
) -> list[Sequence[jax.Device]]:
    """Returns the devices of each part of the axis `slice`."""
    # JAX may count machines with GPUs as slices, too; there the axis is a choice.
    if count == 1 and (len(slices) <= 1 or devices[0].platform != "tpu"):
        return [devices]
    if not slices:
        raise UserError(
            f"parallel.mesh.slice is {count}, but these devices ({devices[0].device_kind}) know of "
            "no slices: set it to 1."
        )
    if count != len(slices):
        raise UserError(
            f"parallel.mesh.slice is {count}, but the devices form {len(slices)} slice(s): set it "
            f"to {len(slices)}, or to -1, which takes as many as there are."
        )
    if len({len(group) for group in slices.values()}) > 1:
        found = ", ".join(str(len(group)) for group in slices.values())
        raise UserError(
            f"The slices have {found} devices, but a mesh needs as many in each: use equal slices."
        )
    return list(slices.values())


def _arrange(shape: Sequence[int], devices: Sequence[jax.Device], given: str) -> np.ndarray:
    """Returns the devices of a slice in the shape of the axes within it, neighbours together."""
    try:
        if devices[0].platform == "tpu":  # it knows which tori may have their axes split
            return jax.make_mesh(tuple(shape), AXES[1:], devices=devices).devices
        return mesh_utils.create_device_mesh(tuple(shape), devices)
    except NotImplementedError:  # an axis is no product of whole axes of the TPUs' torus
        warnings.warn(
            f"A mesh of {given} does not follow the axes of the torus: neighbours in the mesh may "
            "be far apart, and collectives slower.",
            stacklevel=3,
        )
        return np.asarray(devices).reshape(shape)


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
    shards = batch_shards(mesh.shape)
    if accumulate < 1 or batch_size < 1 or batch_size % (shards * accumulate):
        raise UserError(
            f"A batch of {batch_size} is not divisible by {shards} devices x {accumulate} "
            f"micro-batches: change {keys} or parallel.mesh."
        )


def batch_shards(shape: Mapping[str, int]) -> int:
    """Returns into how many parts a mesh of this shape splits a batch."""
    return math.prod(shape[axis] for axis in BATCH_AXES)

"""What of the parameters every device holds in full, and how much of that is accepted."""

import math
from typing import Any

import jax
from jax.sharding import Mesh

from maskjax.config import ConfigDict, flatten
from maskjax.errors import UserError
from maskjax.parallel.mesh import PARAMETER_AXES
from maskjax.parallel.sharding import whole_leaves

_NAMED = 3  # leaves that a sentence names


def check_layout(config: ConfigDict, mesh: Mesh, params: Any) -> None:
    """Refuses a mesh that does not suit the networks, before anything is compiled.

    Args:
      config: of the run.
      mesh: of the devices.
      params: of the system, `ShapeDtypeStruct`s that carry their shardings.

    Raises:
      UserError: `tensor` cannot share out the heads of attention, or a larger share of the
        parameters stays whole than `parallel.max_replicated` allows.
    """
    tensor = mesh.shape["tensor"]
    for key, value in flatten(config.system, "system.").items():
        if key.endswith(".heads") and isinstance(value, int) and value % tensor:
            raise UserError(
                f"parallel.mesh.tensor is {tensor}, which does not divide {key} = {value}: choose "
                "a size that divides the heads of every network."
            )
    limit = config.parallel.max_replicated
    if limit is None:
        return
    if not 0 <= limit <= 1:
        raise UserError(f"parallel.max_replicated is {limit}: give a share between 0 and 1.")
    whole, total = whole_leaves(params), count_bytes(params)
    if sum(whole.values()) > limit * total:
        raise UserError(
            f"{_share(whole, total)} of the parameters would be whole on every device, more than "
            f"parallel.max_replicated = {limit:g} allows; the largest are {_largest(whole)}: "
            "increase parallel.mesh.fsdp, reduce parallel.fsdp_min_size, or raise the limit."
        )


def describe_layout(mesh: Mesh, params: Any) -> str:
    """Returns what stays whole on every device, with its bytes, in one line.

    Args:
      mesh: of the devices.
      params: as in `check_layout`.
    """
    if all(mesh.shape[axis] == 1 for axis in PARAMETER_AXES):
        size = format_bytes(count_bytes(params))
        return f"all {size} of the parameters, since fsdp and tensor are 1"
    whole = whole_leaves(params)
    if not whole:
        return "none of the parameters"
    share = f"{_share(whole, count_bytes(params))} of the parameters in {len(whole)} arrays"
    return f"{share}, the largest {_largest(whole)}"


def format_bytes(size: float) -> str:
    """Returns a number of bytes with its unit, "1.5 MiB"."""
    for unit in ("bytes", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.1f} {unit}" if unit != "bytes" else f"{size} bytes"
        size /= 1024
    return f"{size:.1f} GiB"


def _share(whole: dict[str, int], total: int) -> str:
    size = sum(whole.values())
    return f"{format_bytes(size)} ({size / max(total, 1):.1%})"


def _largest(whole: dict[str, int]) -> str:
    return ", ".join(f"{name} {format_bytes(whole[name])}" for name in list(whole)[:_NAMED])


def count_bytes(tree: Any) -> int:
    """Returns the bytes of all leaves of a tree of arrays or shapes, over all devices."""
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))

"""How fast a group of devices can exchange data, from where they lie."""

import collections
from collections.abc import Callable, Sequence
from typing import Any

from maskjax.planning.topology import Slice


def bandwidth(slice_: Slice, devices: Sequence[Any]) -> Callable[[Sequence[int]], float]:
    """Returns group -> bytes/s that each device of it can send to the others.

    Congestion with other groups is not seen.

    TPUs: a ring along an axis of the torus uses its links in both directions if the axis is
    closed, and half of that if not. The axes along which the devices of a group differ are used
    together, and the devices of a chip share its links.

    GPUs: within a node, the share of each in the switch. Between nodes a collective runs as several
    rings, one through each member that a node has, so the shares of these in the network add up.

    Args:
      slice_: the slice.
      devices: of the mesh, flat; TPUs with `coords`.
    """

    def switched(group: Sequence[int]) -> float:
        chip = slice_.chip
        members = group or range(len(devices))
        nodes = collections.Counter(devices[i].id // chip.node for i in members)
        if len(nodes) == 1:
            return chip.link
        return min(chip.link, min(nodes.values()) * chip.network)

    def of(group: Sequence[int]) -> float:
        places = [tuple(devices[i].coords) for i in group] or [(0,) * 3, tuple(slice_.shape)]
        total = 0.0
        for axis in range(slice_.chip.axes):
            if len({place[axis] for place in places}) > 1:
                total += slice_.chip.link * (2 if slice_.wraps(axis) else 1)
        # Devices of one chip exchange through its memory.
        return (total or slice_.chip.bandwidth) / slice_.chip.devices

    return switched if slice_.chip.is_gpu else of

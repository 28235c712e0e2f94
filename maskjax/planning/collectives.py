"""What devices send each other in a compiled program: kinds, bytes, how often, how long."""

import dataclasses
import math
import re
from collections.abc import Callable, Iterable, Sequence

from maskjax.planning.hlo import (
    Computation,
    HloError,
    Instruction,
    Program,
    elements,
    size_in_bytes,
)

KINDS = (
    "all-gather",
    "all-reduce",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
    "collective-broadcast",
    "send",  # between slices, over the network of the data centre
)
_STARTS = tuple(
    f"{kind}-start" for kind in ("all-gather", "reduce-scatter", "all-to-all", "collective-permute")
)
# libtpu writes a reduce-scatter as an all-reduce whose result is sliced, in a fusion of this name.
_SLICED = "all-reduce-scatter"


@dataclasses.dataclass(frozen=True)
class Collective:
    """One collective of a program.

    Attributes:
      kind: one of `KINDS`.
      bytes: V, of the whole (not split) result; of all its arrays together.
      group: devices, by their place in the mesh, of which one is the first group; empty: unknown.
      size: g, devices of a group.
      runs: how often it runs in a step.
      op_name: where in the Python program it is from.
    """

    kind: str
    bytes: float
    group: tuple[int, ...]
    size: int
    runs: float
    op_name: str

    @property
    def wire(self) -> float:
        """Bytes that each device sends at least, in a ring, in one step."""
        share = (self.size - 1) / self.size if self.size else 0.0
        factor = {"all-reduce": 2 * share, "collective-permute": 1.0, "send": 1.0}
        return self.bytes * self.runs * factor.get(self.kind, share)


def collectives(program: Program, devices: int) -> list[Collective]:
    """Returns the collectives of a program, each once.

    One that runs beside computation is written into several fusions (its start, steps and end)
    under one channel: the occurrence that runs least often is taken.

    Args:
      program: parsed.
      devices: of the mesh.

    Raises:
      HloError: a group of devices is written in an unknown form.
    """
    found: dict[str, Collective] = {}
    for name, computation in program.computations.items():
        if not program.runs[name]:
            continue
        for instruction in computation:
            kind = _kind(instruction)
            if kind is None:
                continue
            channel = re.search(r"channel_id=(\d+)", instruction.attributes)
            key = channel[1] if channel else instruction.name
            if kind == "all-reduce" and name.startswith(_SLICED):
                # Several share a channel, those of equal blocks among them.
                kind, key = "reduce-scatter", name
            one = _collective(kind, instruction, computation, program.runs[name], devices)
            if key not in found or one.runs < found[key].runs:
                found[key] = one
    return list(found.values())


def _kind(instruction: Instruction) -> str | None:
    kind = instruction.op.removesuffix("-start")
    return kind if kind in KINDS and not instruction.op.endswith("-done") else None


def _collective(
    kind: str, instruction: Instruction, computation: Computation, runs: float, devices: int
) -> Collective:
    group, size = first_group(instruction.attributes, devices)
    type_ = instruction.type
    parts = elements(type_)
    if instruction.op in _STARTS and len(parts) > 1:
        type_ = parts[1]  # (operand, result, ...), each of them a tuple if there are several
    if kind == "send":
        type_ = parts[0]
    total = size_in_bytes(type_)
    if kind == "reduce-scatter" and instruction.op.startswith("reduce-scatter"):
        total *= size  # its result is a share; an all-reduce in the other spelling has all of it
    if kind == "collective-permute":
        pairs = re.search(r"source_target_pairs=\{\{(\d+),(\d+)\}", instruction.attributes)
        group, size = (tuple(map(int, pairs.groups())) if pairs else ()), 2
    return Collective(kind, total, group, size, runs, instruction.op_name)


_MESH = re.compile(
    r"replica_groups=mesh\[([^\]]*?)\](?:,?\s*device_ids=\(?([^{]*?)\)?)?\s*\{([^}]*)\}"
)
_LISTED = re.compile(r"replica_groups=\{\{([\d,]*)\}")
_IOTA = re.compile(r"replica_groups=\[(\d+),(\d+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?")


def first_group(attributes: str, devices: int) -> tuple[tuple[int, ...], int]:
    """Returns the first group of devices of a collective, and its size.

    The group may be empty where only the size is known.

    Args:
      attributes: of the instruction.
      devices: of the mesh; a collective without groups is over all of them.

    Raises:
      HloError: the groups are written in an unknown form.
    """
    if match := _LISTED.search(attributes):
        group = tuple(map(int, match[1].split(",")))
        return group, len(group)
    if match := _IOTA.search(attributes):
        size, shape = int(match[2]), tuple(map(int, match[3].split(",")))
        order = tuple(map(int, match[4].split(","))) if match[4] else range(len(shape))
        return tuple(_iota(shape, tuple(order))[:size]), size
    if match := _MESH.search(attributes):
        axes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", match[1])}
        chosen = re.findall(r"'([^']+)'", match[3])
        size = math.prod(axes[name] for name in chosen)
        ids = match[2] or ""
        if "[" in ids:  # the devices of the mesh in another order
            iota = re.search(r"\[([\d,]+)\](?:T\(([\d,]+)\))?", ids)
            if iota is None:
                raise HloError(f"unknown groups: {ids}")
            shape = tuple(map(int, iota[1].split(",")))
            order = tuple(map(int, iota[2].split(","))) if iota[2] else tuple(range(len(shape)))
            flat = _iota(shape, order)
        else:
            flat = list(range(math.prod(axes.values())))
        sizes = tuple(axes.values())
        strides = [math.prod(sizes[i + 1 :]) for i in range(len(sizes))]
        group = [0]
        for (name, extent), stride in zip(axes.items(), strides, strict=True):
            if name in chosen:
                group = [g + i * stride for g in group for i in range(extent)]
        return tuple(flat[g] for g in group if g < len(flat)), size
    if "replica_groups={}" in attributes or "replica_groups" not in attributes:
        return tuple(range(devices)), devices
    raise HloError(f"unknown groups: {attributes[attributes.index('replica_groups') :][:95]}")


def _iota(shape: tuple[int, ...], order: tuple[int, ...]) -> list[int]:
    """Returns 0, 1, ... in an array of `shape`, transposed by `order`, as a flat list."""
    strides = [math.prod(shape[i + 1 :]) for i in range(len(shape))]
    flat = [0]
    for axis in order:
        flat = [f + i * strides[axis] for f in flat for i in range(shape[axis])]
    return flat


def table(found: Iterable[Collective]) -> dict[str, dict[str, float]]:
    """Returns {kind: {"ops", "runs", "bytes" (V, of a step), "wire"}}, of kinds that occur."""
    rows: dict[str, dict[str, float]] = {}
    for one in found:
        row = rows.setdefault(one.kind, dict(ops=0, runs=0, bytes=0, wire=0))
        row["ops"] += 1
        row["runs"] += one.runs
        row["bytes"] += one.bytes * one.runs
        row["wire"] += one.wire
    return {kind: rows[kind] for kind in KINDS if kind in rows}


def seconds(
    found: Iterable[Collective],
    bandwidth: Callable[[Sequence[int]], float],
) -> float:
    """Returns how long the links are busy in a step, one collective after the other.

    Args:
      found: the collectives.
      bandwidth: group of devices -> bytes/s that each of them can send within the group.
    """
    return sum(one.wire / bandwidth(one.group) for one in found if one.wire)

"""Bytes per device: counted by hand, given by the compiler, and what makes the two differ."""

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import jax

from maskjax.parallel import sharding
from maskjax.parallel.mesh import batch_shards
from maskjax.paths import named_leaves
from maskjax.planning.compiling import Compiled
from maskjax.planning.hlo import Program, elements, size_in_bytes
from maskjax.training.run import Run

# Of the capacity: the rest is for batches that are fetched ahead, copies for evaluation, and the
# saving of checkpoints.
COMFORTABLE = 0.9


@dataclasses.dataclass(frozen=True)
class Memory:
    """Memory of one device, in bytes. None: not known, since it did not fit or the plan is quick.

    Attributes:
      parameters: counted by hand: what gradients train.
      optimiser: counted by hand.
      other: counted by hand: statistics, teachers, counters.
      state: all three as the compiler lays them out, with padding.
      batch: of arguments that are not the state.
      activations: what the step needs besides: activations, gradients, temporaries.
      peak: what decides; of a quick plan, what the compiler assigned; None if it does not fit.
      needed: what it takes, if it does not fit.
      capacity: what the device has for a program.
    """

    parameters: float
    optimiser: float
    other: float
    state: float | None
    batch: float | None
    activations: float | None
    peak: float | None
    needed: float | None
    capacity: float

    @property
    def fits(self) -> bool:
        """Whether it is below the capacity: above it the compiler of TPUs refuses."""
        return self.needed is None

    @property
    def headroom(self) -> float | None:
        """What is left; negative if it does not fit."""
        used = self.peak if self.fits else self.needed
        return None if used is None else self.capacity - used

    @property
    def by_hand(self) -> float:
        """The state without padding."""
        return self.parameters + self.optimiser + self.other


def memory(run: Run, compiled: Compiled, capacity: float) -> Memory:
    """Returns the memory of a compiled step, per device."""
    state = run.abstract_state
    parameters = shard_bytes(state.variables["params"])
    optimiser = shard_bytes(state.opt_state)
    counted = (parameters, optimiser, shard_bytes(state) - parameters - optimiser)
    given = compiled.memory
    peak = given.get("peak", given.get("assigned"))
    rest: tuple[float | None, ...] = (None, None, None)
    if "argument" in given:
        batch = given["argument"] - given["alias"]
        rest = (given["alias"], batch, given["peak"] - given["argument"])
    return Memory(
        *counted,
        *rest,
        peak=peak if compiled.fits else None,
        needed=compiled.needed,
        capacity=compiled.available or capacity,
    )


def shard_bytes(tree: Any) -> int:
    """Returns the bytes of a tree on one device, from shapes and shardings, without padding."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )


def whole_leaves(run: Run) -> dict[str, int]:
    """Returns {path: bytes} of large leaves of the state that every device holds, biggest first.

    That is a leaf with no axis that the `fsdp` axis divides. Empty without FSDP.
    """
    if run.mesh.shape["fsdp"] == 1:
        return {}
    state = run.abstract_state
    sizes = {name: math.prod(leaf.shape) for name, leaf in named_leaves(state).items()}
    least = run.config.parallel.fsdp_min_size
    return {n: size for n, size in sharding.whole_leaves(state).items() if sizes[n] >= least}


_LAYOUT = re.compile(r"\w+\[([\d,]*)\]\{([\d,]*)(?::T\(([\d,]+)\))?")


def padded_bytes(type_: str) -> float:
    """Returns the bytes of an array with its tiles: `f32[12,64]{1,0:T(8,128)}` takes 16 x 128.

    The axes that lie innermost are rounded up to whole tiles.
    """
    match = _LAYOUT.match(type_)
    size = size_in_bytes(type_)
    if not match or not match[3]:
        return size
    shape = [int(n) for n in match[1].split(",") if n]
    tile = [int(n) for n in match[3].split(",")]
    order = [int(n) for n in match[2].split(",") if n]  # innermost first
    width = size / math.prod(shape)
    extents = [shape[axis] for axis in order] + [1] * (len(tile) - len(shape))
    for i, n in enumerate(reversed(tile)):
        extents[i] = math.ceil(extents[i] / n) * n
    return math.prod(extents) * width


def badly_padded(program: Program, gap: float = 1.1) -> dict[str, tuple[float, float]]:
    """Returns {path of an argument: (bytes, bytes with padding)} where padding costs, worst first.

    Args:
      program: parsed.
      gap: least ratio of the two.
    """
    found = {}
    for instruction in program.computations[program.entry]:
        if instruction.op == "parameter":
            size, padded = size_in_bytes(instruction.type), padded_bytes(instruction.type)
            if padded > gap * size and padded > 2**16:
                found[instruction.op_name or instruction.name] = (size, padded)
    return dict(sorted(found.items(), key=lambda item: item[1][0] - item[1][1]))


def unsplit_activations(program: Program, run: Run, least: float = 2**24) -> dict[str, float]:
    """Returns {place in the program: bytes} of arrays over the whole batch on one device.

    XLA gathers activations where a constraint is missing; each device then does the work of all.
    Arrays that could as well be parameters are passed over: those with the extents of one, and,
    where the batch is as large as an axis of a parameter, those without three axes or more.

    Args:
      program: parsed.
      run: whose batch and state it is.
      least: bytes; smaller arrays, such as noise for masks, do no harm.
    """
    batch_size = run.config.train.batch_size // run.config.train.accumulate
    if batch_shards(run.mesh.shape) == 1:
        return {}
    of_state = {dims for leaf in jax.tree.leaves(run.abstract_state) for dims in _tails(leaf.shape)}
    ambiguous = any(batch_size in dims for dims in of_state)
    found: dict[str, float] = {}
    for name in program.control:
        for instruction in program.computations[name]:
            if instruction.op in ("parameter", "tuple", "get-tuple-element", "while", "bitcast"):
                continue
            for part in elements(instruction.type):
                shape = _shape(part)
                if not _over_batch(shape, batch_size, ambiguous):
                    continue
                if tuple(sorted(shape)) in of_state:
                    continue
                size = size_in_bytes(part)
                if size >= least:
                    place = instruction.op_name or instruction.name
                    found[place] = max(size, found.get(place, 0.0))
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def _over_batch(shape: tuple[int, ...], batch_size: int, ambiguous: bool) -> bool:
    """Whether an array has an axis of the whole batch: the first or, in a stack, the second."""
    if ambiguous:
        return len(shape) > 2 and shape[0] == batch_size
    return batch_size in shape[:2]


def _shape(type_: str) -> tuple[int, ...]:
    """Returns the extents of an array that are more than 1."""
    match = re.match(r"\w+\[([\d,]*)\]", type_)
    return tuple(int(n) for n in match[1].split(",") if n not in ("", "1")) if match else ()


def _tails(shape: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Yields the sorted extents of a leaf, and those of one block of a stacked one."""
    shape = tuple(n for n in shape if n != 1)
    yield tuple(sorted(shape))
    yield tuple(sorted(shape[1:]))


def as_json(memory_: Memory) -> Mapping[str, Any]:
    """Returns the figures and what follows from them."""
    return dataclasses.asdict(memory_) | {
        "fits": memory_.fits,
        "headroom": memory_.headroom,
        "by_hand": memory_.by_hand,
    }

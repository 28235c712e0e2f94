"""How long the kernels of a GPU take at least, one after the other.

The compiler of GPUs writes no time that could be used: what its cost model says of matrix products
and of Triton's fusions is off by orders of magnitude. So each kernel gets a bound of its own: its
FLOPs at the peak or its traffic at the bandwidth, whichever takes longer. Kernels of a step run
after each other, so the sum is a closer bound than that of the whole step.
"""

import collections
import math
import re

from maskjax.planning import costs, gpus
from maskjax.planning.chips import Chip
from maskjax.planning.hlo import Computation, Instruction, Program, elements


def seconds(program: Program, chip: Chip, peak: float) -> dict[str, float]:
    """Returns {part of the step: seconds of a GPU}, most first, without collectives.

    Args:
      program: parsed.
      chip: the GPU.
      peak: bfloat16 FLOP/s.
    """
    parts: dict[str, float] = collections.defaultdict(float)
    for home, instruction, runs in costs.executed(program):
        if costs.is_collective(instruction):
            continue
        moved = costs.moved(program, home, instruction) / chip.bandwidth
        computed = flops(program, home, instruction) / _peak(home, instruction, chip, peak)
        parts[costs.part(instruction)] += runs * max(moved, computed)
    return costs.most_first(parts)


def without_flops(program: Program) -> dict[str, float]:
    """Returns {op: runs in a step} of library calls of which only the traffic is counted."""
    counts: dict[str, float] = collections.defaultdict(float)
    for home, instruction, runs in costs.executed(program):
        if instruction.op == "custom-call" and not flops(program, home, instruction):
            target = re.search(r'custom_call_target="([^"]*)"', instruction.attributes)
            counts[target[1] if target else instruction.op] += runs
    return costs.most_first(counts)


def flops(program: Program, home: Computation, instruction: Instruction) -> float:
    """Returns the FLOPs of the matrix products of one kernel.

    Those of convolutions are missing: what they contract does not stand in the text.
    """
    if instruction.op == "fusion":
        inner = program.called(instruction, "calls")
        return sum(flops(program, inner, each) for each in inner)
    match = re.search(
        r'lhs_contracting_dim(?:s=\{|ensions":\[)([^}\]]*)[}\]]', instruction.attributes
    )
    if instruction.op not in ("dot", "custom-call") or match is None:
        return 0.0
    left = _shape(home[instruction.operands[0]].type)
    contracted = math.prod(left[int(axis)] for axis in re.findall(r"\d+", match[1]))
    # A custom call returns its workspace, too.
    return 2.0 * contracted * math.prod(_shape(elements(instruction.type)[0]))


def _peak(home: Computation, instruction: Instruction, chip: Chip, peak: float) -> float:
    """Returns the FLOP/s for the types of a product: half for TF32, far less for true float32."""
    operands = [home[name].type for name in instruction.operands]
    if not any(type_.startswith("f32") for type_ in operands[:2]):
        return peak
    exact = "HIGHEST" in instruction.attributes
    return gpus.processor(chip).float32 if exact else peak / 2


def _shape(type_: str) -> list[int]:
    match = re.match(r"\w+\[([\d,]*)\]", type_)
    return [int(n) for n in match[1].split(",") if n] if match else []

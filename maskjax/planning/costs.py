"""What the compiler itself expects of a program: cycles of every fusion, and traffic to memory."""

import collections
import re
from collections.abc import Iterator

from maskjax.planning.collectives import KINDS
from maskjax.planning.hlo import Computation, Instruction, Program, elements, size_in_bytes

_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
# What takes no time of the compute units, or is counted elsewhere.
_FREE = {
    *("parameter", "constant", "get-tuple-element", "tuple", "bitcast", "while", "conditional"),
    *("call", "after-all", "partition-id", "replica-id", "iota", "opt-barrier", "domain"),
}
# The objective is a jitted function of its own (`System.jitted_terms`), its modules are classes.
_MODULE = re.compile(r"(transpose\()?jvp\(jit\(term_values\)\)+/([A-Z]\w*)/")


def cycles(program: Program) -> dict[str, float]:
    """Returns {part of the step: cycles of a device}, most first.

    Parts are the modules of the networks, forward and backward, and "other": augmentation, masks,
    targets, loss and optimiser. Time that fusions wait for memory is included, collectives and what
    `without_estimate` names are not.
    """
    parts: dict[str, float] = collections.defaultdict(float)
    for _, instruction, runs in executed(program):
        if match := _CYCLES.search(instruction.attributes):
            parts[part(instruction)] += int(match[1]) * runs
    return most_first(parts)


def without_estimate(program: Program) -> dict[str, float]:
    """Returns {op: runs in a step} of what the compiler gives no cycles for, most first."""
    counts: dict[str, float] = collections.defaultdict(float)
    for _, instruction, runs in executed(program):
        if not _CYCLES.search(instruction.attributes) and not instruction.op.endswith("-done"):
            counts[instruction.op] += runs
    return most_first(counts)


def most_first(parts: dict[str, float]) -> dict[str, float]:
    """Returns parts of a step in the order of what they cost."""
    return dict(sorted(parts.items(), key=lambda item: -item[1]))


def traffic(program: Program) -> float:
    """Returns the bytes that a device moves to and from its memory in a step.

    Buffers in on-chip memory are left out, slices count as what they read, and updates in place as
    what they write. Right within half: the compiler's own figure counts loops once.
    """
    return sum(
        moved(program, program.computations[name], instruction) * program.runs[name]
        for name in program.control
        for instruction in program.computations[name]
    )


def executed(program: Program) -> Iterator[tuple[Computation, Instruction, float]]:
    """Yields (where it stands, instruction, runs in a step) of all that take time."""
    for name in program.control:
        for instruction in program.computations[name]:
            if instruction.op not in _FREE:
                yield program.computations[name], instruction, program.runs[name]


def is_collective(instruction: Instruction) -> bool:
    """Whether devices exchange data in it, or wait for that."""
    return instruction.op.removesuffix("-start").removesuffix("-done") in KINDS


def part(instruction: Instruction) -> str:
    """Returns the part of the step that an instruction belongs to."""
    match = _MODULE.search(instruction.op_name)
    if not match:
        return "other"
    return f"{match[2]} {'backward' if match[1] else 'forward'}"


def moved(program: Program, home: Computation, instruction: Instruction) -> float:
    """Returns the bytes that one run of an instruction moves to and from the memory."""
    op = instruction.op
    if op in _FREE or op.endswith("-done"):
        return 0.0
    if op in ("copy-start", "slice-start"):  # (result, source, ...) or ((source), result, ...)
        parts = elements(instruction.type)
        source, result = (parts[1], parts[0]) if op == "copy-start" else (parts[0], parts[1])
        return size_in_bytes(result) * (_in_memory(source) + _in_memory(result))
    if op == "fusion":
        inner = program.called(instruction, "calls")
        read = sum(
            _read(program, inner, position, home[operand].type)
            for position, operand in enumerate(instruction.operands)
        )
        return read + _written(program, inner, inner.root, instruction.type)
    if op == "dynamic-slice":
        return 2 * _memory_size(instruction.type)
    if op == "dynamic-update-slice":
        return 2 * _memory_size(home[instruction.operands[1]].type)
    operands = sum(_memory_size(home[name].type) for name in instruction.operands)
    if "__cublas" in instruction.attributes:  # (result, workspace)
        return operands + _memory_size(elements(instruction.type)[0])
    return operands + _memory_size(instruction.type)


def _in_memory(type_: str) -> bool:
    """Whether an array is in the device's main memory: others name their space, as S(1)."""
    return not re.search(r"S\([1-9]\d*\)", type_)


def _memory_size(type_: str) -> float:
    if type_.startswith("("):
        return sum(_memory_size(part) for part in elements(type_))
    return size_in_bytes(type_) if _in_memory(type_) else 0.0


def _read(program: Program, inner: Computation, position: int, type_: str) -> float:
    """Returns what a fusion reads of an operand: all of it, or the slices that it takes."""
    whole = _memory_size(type_)
    if not whole:
        return 0.0
    name = next((i.name for i in inner if i.op == "parameter" and i.literal == str(position)), None)
    total = 0.0
    for user in inner:
        if name not in user.operands:
            continue
        if user.op in ("dynamic-slice", "slice"):
            total += size_in_bytes(user.type)
        elif user.op == "dynamic-update-slice" and user.operands[0] == name:
            continue  # in place: the rest stays where it is
        elif user.op == "fusion":
            nested = program.called(user, "calls")
            total += _read(program, nested, user.operands.index(name), type_)
        elif user.op == "bitcast":
            return whole if not _only_sliced(inner, user.name) else total + _slices(inner, user)
        else:
            return whole
    return min(total, whole)


def _only_sliced(inner: Computation, name: str) -> bool:
    users = [user for user in inner if name in user.operands]
    return all(user.op in ("dynamic-slice", "slice") for user in users)


def _slices(inner: Computation, bitcast: Instruction) -> float:
    return sum(size_in_bytes(u.type) for u in inner if bitcast.name in u.operands)


def _written(program: Program, inner: Computation, name: str, type_: str) -> float:
    """Returns what a fusion writes of its result: all of it, or the slice that it updates."""
    root = inner[name]
    if root.op == "tuple":
        parts = elements(type_)
        return sum(
            _written(program, inner, operand, part)
            for operand, part in zip(root.operands, parts, strict=True)
        )
    if not _memory_size(type_):
        return 0.0
    if root.op == "bitcast":
        return _written(program, inner, root.operands[0], type_)
    if root.op == "dynamic-update-slice":
        return size_in_bytes(inner[root.operands[1]].type)
    if root.op == "fusion":
        nested = program.called(root, "calls")
        return _written(program, nested, nested.root, type_)
    return _memory_size(type_)
